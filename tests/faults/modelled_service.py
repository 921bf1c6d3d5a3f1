"""The inference service as it is, but for its engine: pictures are noise from their seeds, and take a known time.

`python -m tests.faults.modelled_service` is started as the real one is. `MODELLED_STEP_S`: seconds of a step.
`MODELLED_PIXELS`: width and height of every picture, whatever was asked for, so that pictures can be large.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any

import numpy as np

from base_models.adapters.adapter_file import AdapterInvalid
from base_models.catalog import BaseModelEntry
from inference_service.__main__ import main
from inference_service.engine import AppliedAdapter, HostAdapter, Picture
from inference_service.events import Progress
from inference_service.generation import GenerationRequest
from inference_service.settings import InferenceSettings
from service_kit.serving import run_service

BROKEN_FILE = b"not an adapter"


class ModelledEngine:
    """See Engine. All requests run side by side, and the images of one after each other."""

    def __init__(self, step_s: float, pixels: int) -> None:
        self._step_s = step_s
        self._pixels = pixels

    def read_adapter(self, body: bytes) -> HostAdapter:
        if body == BROKEN_FILE:
            raise AdapterInvalid("broken on purpose")
        return HostAdapter({}, len(body))

    def in_slots(self) -> frozenset[str]:
        return frozenset()

    def close(self) -> None:
        """Nothing to stop."""

    async def generate(
        self, request: GenerationRequest, adapters: Sequence[AppliedAdapter]
    ) -> AsyncGenerator[Progress | Picture, Any]:
        shape = self._pixels, self._pixels, 3
        for task in request.tasks:
            for step in range(request.steps + 1):
                yield Progress((task.index,), step, request.steps)
                await asyncio.sleep(self._step_s)
            yield Picture(task, np.random.default_rng(task.seed).integers(0, 256, shape, dtype=np.uint8))


def load_engines(entries: list[BaseModelEntry], settings: InferenceSettings) -> dict[str, ModelledEngine]:
    """One for each base model."""
    step_s, pixels = float(os.environ.get("MODELLED_STEP_S", "0.01")), int(os.environ.get("MODELLED_PIXELS", "64"))
    return {entry.name: ModelledEngine(step_s, pixels) for entry in entries}


if __name__ == "__main__":
    run_service(partial(main, load_engines))
