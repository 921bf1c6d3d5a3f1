"""Prompts to conditioning, beside the step loop: batched, remembered by text and adapters.

Its one rule: a prompt's conditioning depends on its text and on the adapters of its own request only.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from base_models.family import BaseModel, Conditioning
from inference_service.denoising.adapted_layers import AdaptedLayers
from inference_service.denoising.batch_thread import BatchThread
from inference_service.denoising.outfits import Outfit, OutfitKey, fits_slots, key_of

_REMEMBERED_BYTES = 256 * 1024**2
_BATCH = 16


@dataclass(frozen=True)
class _Prompt:
    text: str
    outfit: Outfit
    answer: "Future[Conditioning]"

    @property
    def key(self) -> tuple[str, OutfitKey]:
        return self.text, key_of(self.outfit)


class PromptEncoder:
    """Encodes for one base model. layers: of everything that adapters may change but the denoiser."""

    def __init__(self, base: BaseModel, layers: AdaptedLayers) -> None:
        self._base = base
        self._layers = layers
        self._lock = threading.Lock()
        self._answers: OrderedDict[tuple[str, OutfitKey], Future[Conditioning]] = OrderedDict()
        self._bytes = 0
        self._thread = BatchThread("prompt-encoding", _BATCH, _group, self._encode, self._failed)
        self.close = self._thread.close

    def encode(self, text: str, outfit: Outfit) -> "Future[Conditioning]":
        """Conditioning of one prompt, as one row, with the text encoders wearing these adapters. From any thread."""
        prompt = _Prompt(text, outfit, Future())
        with self._lock:
            known = self._answers.get(prompt.key)
            if known is not None:
                self._answers.move_to_end(prompt.key)
                return known
            self._answers[prompt.key] = prompt.answer
        # Said to be running from the start, so that nobody who gives up waiting cancels it for the others.
        prompt.answer.set_running_or_notify_cancel()
        self._thread.put(prompt)
        return prompt.answer

    @torch.inference_mode()
    def _encode(self, prompts: Sequence[_Prompt]) -> None:
        self._layers.wear([prompt.outfit for prompt in prompts], doubled=0)
        encoded = self._base.encode_prompts([prompt.text for prompt in prompts])
        for place, prompt in enumerate(prompts):
            # A clone, since a view would keep the whole batch in memory.
            conditioning = {name: tensor[place : place + 1].clone() for name, tensor in encoded.items()}
            self._remember(_size(conditioning))
            prompt.answer.set_result(conditioning)

    def _failed(self, prompts: Sequence[_Prompt], error: Exception) -> None:
        if len(prompts) == 1:
            with self._lock:
                del self._answers[prompts[0].key]
            prompts[0].answer.set_exception(error)

    def _remember(self, size: int) -> None:
        with self._lock:
            self._bytes += size
            for key, answer in list(self._answers.items()):
                if self._bytes <= _REMEMBERED_BYTES:
                    return
                if answer.done():
                    del self._answers[key]
                    self._bytes -= _size(answer.result())


def _group(prompt: _Prompt) -> OutfitKey | None:
    return None if fits_slots(prompt.outfit) else key_of(prompt.outfit)


def _size(conditioning: Conditioning) -> int:
    return sum(tensor.nbytes for tensor in conditioning.values())
