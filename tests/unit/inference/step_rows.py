"""The engine's parts without its threads: rows of requests through the step loop, and the latents they end with."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from base_models.adapters.adapter_file import read_adapter
from base_models.families.pipeline_model import PipelineModel
from inference_service.denoising.adapted_layers import AdaptedLayers, adaptable_layers, with_endings
from inference_service.denoising.beginning import begin
from inference_service.denoising.denoiser import Denoiser
from inference_service.denoising.outfits import SlottedAdapter, outfit, slotted
from inference_service.denoising.prompt_encoding import PromptEncoder
from inference_service.denoising.rows import Job, Row
from inference_service.denoising.slots import SlotBank, SlotLayout
from inference_service.denoising.step_loop import StepLoop
from inference_service.generation import GenerationRequest

SLOT_RANK = 16


class StepRows:
    """Steps when told to. `worn`: adapter files with their weights, by their digests."""

    def __init__(self, base: PipelineModel, batch: int = 8, slots: int = 16) -> None:
        self.base = base
        self._prefix, *others = base.adaptable
        layers = adaptable_layers({self._prefix: base.denoiser})
        text_layers = adaptable_layers({other: base.adaptable[other] for other in others})
        layout = SlotLayout(with_endings(layers, base.lora_modules("all")), SLOT_RANK)
        text = SlotLayout(with_endings(text_layers, base.text_encoder_lora_modules()), SLOT_RANK)
        self.bank = SlotBank(layout, slots, base.device, torch.float32)
        self.text_bank = SlotBank(text, slots, base.device, torch.float32)
        self.layers = AdaptedLayers(layers, self.bank)
        self.encoder = PromptEncoder(base, AdaptedLayers(text_layers, self.text_bank))
        self.finished: list[Row] = []
        self.told: list[Any] = []
        advance = Denoiser(base, self.layers).advance
        self.loop = StepLoop(advance, self.finished.append, self._no_preview, lambda group: batch, slots)

    def add(self, request: GenerationRequest, worn: Sequence[tuple[bytes, float]] = ()) -> Job:
        """Have a request join."""
        read = [(body, weight, self._read(body)) for body, weight in worn]
        job = Job(
            request, outfit((str(hash(body)), weight, part.denoiser) for body, weight, part in read), self.told.append
        )
        text = outfit((str(hash(body)), weight, part.text) for body, weight, part in read)
        prompts = [self.encoder.encode(prompt.text, text).result() for prompt in request.prompts]
        is_guided = self.base.entry.is_guided(request.guidance_scale)
        negative = self.encoder.encode(request.negative_prompt, text).result() if is_guided else None
        self.loop.add(begin(self.base, job, prompts, negative))
        return job

    def run(self) -> dict[tuple[Job, int], Tensor]:
        """Final latents_CHW of all rows, by job and seed."""
        while self.loop.step():
            pass
        rows, self.finished[:] = list(self.finished), []
        return {(row.job, row.task.seed): row.latents_CHW for row in rows}

    def close(self) -> None:
        """Stop the thread that encodes prompts."""
        self.encoder.close()

    def _no_preview(self, row: Row) -> None:
        raise AssertionError("nobody asked for a preview")

    def _read(self, body: bytes) -> SlottedAdapter:
        return slotted(read_adapter(body, self.base.adaptable), self._prefix, self.bank, self.text_bank)
