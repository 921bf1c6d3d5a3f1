"""Requests to an engine through its port, and when two pictures are the same."""

import asyncio
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from inference_service.denoising.step_engine import StepEngine
from inference_service.engine import AppliedAdapter, EngineEvent, Picture
from inference_service.generation import GenerationRequest
from service_kit.names import AdapterVersionName

Pixels = NDArray[np.uint8]


def generated(
    engine: StepEngine, request: GenerationRequest, adapters: Sequence[AppliedAdapter] = ()
) -> list[EngineEvent]:
    """Everything that the engine yields for a request."""

    async def collect() -> list[EngineEvent]:
        return [result async for result in engine.generate(request, adapters)]

    return asyncio.run(collect())


def pictures_of(results: Iterable[EngineEvent]) -> dict[int, Pixels]:
    """Pixels by seed."""
    return {result.task.seed: result.pixels_HWC for result in results if isinstance(result, Picture)}


def applied(engine: StepEngine, body: bytes, weight: float = 1.0) -> AppliedAdapter:
    """An adapter file as the engine takes it."""
    digest = hashlib.sha256(body).hexdigest()
    return AppliedAdapter(AdapterVersionName("default", "test", 1), digest, weight, engine.read_adapter(body))


def assert_equal_pictures(found: Pixels, wanted: Pixels) -> None:
    """Equality of pictures: within 1/255 on 99.9 % of values."""
    difference = np.abs(found.astype(int) - wanted.astype(int))
    assert (difference <= 1).mean() >= 0.999


def far_apart(found: Pixels, other: Pixels) -> bool:
    """Whether nobody would take them for the same picture."""
    return bool((np.abs(found.astype(int) - other.astype(int)) > 1).mean() > 0.1)
