"""The engine's port over the step loop: builds the parts around one base model, and feeds the loop from asyncio.

Its one rule: the thread that steps does nothing else; others pack adapters, encode prompts and decode pictures.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any, cast

from base_models.adapters.adapter_file import read_adapter
from base_models.catalog import BaseModelEntry
from base_models.family import BaseModel, Conditioning
from base_models.pipelines import without_weights
from inference_service.denoising.adapted_layers import AdaptedLayers, adaptable_layers, with_endings
from inference_service.denoising.beginning import begin
from inference_service.denoising.denoiser import Denoiser
from inference_service.denoising.latent_decoding import LatentDecoder
from inference_service.denoising.latent_preview import LatentPreview
from inference_service.denoising.outfits import Outfit, SlottedAdapter, outfit, slotted
from inference_service.denoising.previewing import Previewer
from inference_service.denoising.prompt_encoding import PromptEncoder
from inference_service.denoising.rows import Job, Row, RowGroup
from inference_service.denoising.slots import SlotBank, SlotLayout
from inference_service.denoising.step_loop import EngineCounters, StepLoop
from inference_service.engine import AppliedAdapter, EngineEvent, HostAdapter, Picture
from inference_service.generation import MAX_ADAPTERS, GenerationRequest
from service_kit.call_context import span

_logger = logging.getLogger(__name__)


class StepEngine:
    """See Engine. Runs where the base model is.

    batch_size: most images of the default size in one forward pass, and in one decoding. slot_rank: largest rank that
    fits a slot; adapters above it run in batches of their own. slot_bytes: what slots may take on the device.
    """

    def __init__(
        self, entry: BaseModelEntry, base: BaseModel, batch_size: int, slot_rank: int, slot_bytes: int
    ) -> None:
        self.base = base
        self._entry = entry
        self._batch_size = batch_size
        _, height, width = base.latent_shape(entry.default_size, entry.default_size)
        self._default_area = height * width
        # Files are checked against modules without weights: the real ones may be computing in another thread.
        self._blank_modules = {prefix: without_weights(module) for prefix, module in base.adaptable.items()}
        self._prefix, *others = base.adaptable
        layers = adaptable_layers({self._prefix: base.denoiser})
        text_layers = adaptable_layers({prefix: base.adaptable[prefix] for prefix in others})
        denoiser = SlotLayout(with_endings(layers, base.lora_modules("all")), slot_rank)
        text = SlotLayout(with_endings(text_layers, base.text_encoder_lora_modules()), slot_rank)
        dtype = base.denoiser.dtype
        slots = max(slot_bytes // (dtype.itemsize * (denoiser.size + text.size)), MAX_ADAPTERS)
        self._bank = SlotBank(denoiser, slots, base.device, dtype)
        self._text_bank = SlotBank(text, slots, base.device, dtype)
        self._encoder = PromptEncoder(base, AdaptedLayers(text_layers, self._text_bank))
        self._decoder = LatentDecoder(base, batch_size)
        denoise = Denoiser(base, AdaptedLayers(layers, self._bank)).advance
        self._previewer = Previewer(LatentPreview.fit(base))
        self._loop = StepLoop(denoise, self._decoder.decode, self._previewer.draw, self._limit, slots)
        self._wake = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="denoising", daemon=True)
        self._thread.start()

    @property
    def counters(self) -> EngineCounters:
        """What it has done so far."""
        return self._loop.counters

    def read_adapter(self, body: bytes) -> HostAdapter:
        tensors = read_adapter(body, self._blank_modules)
        return slotted(tensors, self._prefix, self._bank, self._text_bank)

    def in_slots(self) -> frozenset[str]:
        return self._bank.digests

    async def generate(
        self, request: GenerationRequest, adapters: Sequence[AppliedAdapter]
    ) -> AsyncGenerator[EngineEvent, Any]:
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[EngineEvent | Exception] = asyncio.Queue()

        def tell(event: EngineEvent | Exception) -> None:
            # A loop that is closed has nobody left who waits.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(events.put_nowait, event)

        contents = [(adapter.digest, adapter.weight, cast(SlottedAdapter, adapter.content)) for adapter in adapters]
        job = Job(request, outfit((digest, weight, content.denoiser) for digest, weight, content in contents), tell)
        text_outfit = outfit((digest, weight, content.text) for digest, weight, content in contents)
        try:
            self._submit(await self._begin(job, text_outfit))
            missing = len(request.tasks)
            while missing:
                event = await events.get()
                if isinstance(event, Exception):
                    raise event
                missing -= isinstance(event, Picture)
                yield event
        finally:
            job.is_abandoned = True

    def close(self) -> None:
        """Stop after the step that is running. What was not finished is not told any more."""
        with self._wake:
            self._is_closed = True
            self._wake.notify()
        self._thread.join()
        self._encoder.close()
        self._decoder.close()
        self._previewer.close()

    async def _begin(self, job: Job, text_outfit: Outfit) -> list[Row]:
        request = job.request
        is_guided = self._entry.is_guided(request.guidance_scale)
        texts = [prompt.text for prompt in request.prompts] + [request.negative_prompt] * is_guided
        wanted = [self._encoder.encode(text, text_outfit) for text in texts]
        with span("encode prompts", prompts=len(texts)):
            encoded: list[Conditioning] = await asyncio.gather(*map(asyncio.wrap_future, wanted))
        # Drawing the noise of many images takes time that the event loop does not have.
        return await asyncio.to_thread(begin, self.base, job, encoded, encoded[-1] if is_guided else None)

    def _submit(self, rows: list[Row]) -> None:
        with self._wake:
            self._loop.add(rows)
            self._wake.notify()

    def _run(self) -> None:
        while not self._is_closed:
            try:
                is_idle = not self._loop.step()
            except Exception as error:
                _logger.exception("a step failed; its requests end, and the engine goes on")
                self._loop.fail_all(error)
                continue
            if is_idle:
                with self._wake:
                    self._wake.wait_for(lambda: self._is_closed or self._loop.has_arrivals)

    def _limit(self, group: RowGroup) -> int:
        """Most images of a group in one forward pass: fewer of larger ones, so that they take the same memory."""
        _, height, width = group.shape
        return max(1, min(self._batch_size, self._batch_size * self._default_area // (height * width)))
