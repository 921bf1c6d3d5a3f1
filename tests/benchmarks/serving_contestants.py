"""A contestant as the benchmark sees it; and one in this process, whose engine is called through its port.

Its one rule: nothing of gRPC or an object store is imported, since machines with a GPU may have neither.
"""

import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from base_models.catalog import BaseModelEntry
from inference_service.engine import AppliedAdapter, Picture
from inference_service.events import Progress
from inference_service.generation import GenerationRequest, Prompt
from service_kit.names import AdapterVersionName
from tests.benchmarks.serving_engines.counters import Counted, CountingEngine, taken
from tests.benchmarks.serving_turns import Ask, Asked


@dataclass(frozen=True)
class Contestant:
    """Who is asked for pictures, and what its engine has counted so far."""

    ask: Ask
    counted: Callable[[], Awaitable[Counted]]


def adapter_name(number: int) -> AdapterVersionName:
    """What the adapter with this number is called."""
    return AdapterVersionName("default", f"load-{number}", 1)


def in_this_process(engine: CountingEngine, entry: BaseModelEntry, bodies: Sequence[bytes]) -> Contestant:
    """An engine of this process. bodies: the adapters' files, by their numbers."""
    applied = [
        AppliedAdapter(adapter_name(number), hashlib.sha256(body).hexdigest(), 1.0, content)
        for number, (body, content) in enumerate((body, engine.read_adapter(body)) for body in bodies)
    ]

    async def ask(asked: Asked) -> None:
        number = asked.request.adapter
        async for result in engine.generate(_request(asked, entry), [] if number is None else [applied[number]]):
            if isinstance(result, Picture):
                note_picture(asked, result.pixels_HWC)
            elif isinstance(result, Progress):
                note_progress(asked, result.completed_steps / result.total_steps)

    async def counted() -> Counted:
        return taken(engine.counters)

    return Contestant(ask, counted)


def note_progress(asked: Asked, share: float) -> None:
    """Progress was heard of."""
    if asked.first_progress_s is None:
        asked.first_progress_s = time.perf_counter()
    asked.share_done = share


def note_picture(asked: Asked, pixels_HWC: "np.ndarray") -> None:
    """The picture was heard of."""
    asked.finished_s, asked.pixels_HWC = time.perf_counter(), pixels_HWC


def _request(asked: Asked, entry: BaseModelEntry) -> GenerationRequest:
    """The same with the base model's defaults, as the service would have filled them in."""
    request, kind = asked.request, asked.request.kind
    return GenerationRequest(
        project="default",
        base_model=entry.name,
        adapters=(),
        prompts=(Prompt(request.prompt, (request.seed,)),),
        images_per_prompt=1,
        negative_prompt="",
        guidance_scale=entry.generation.guidance_scale,
        steps=kind.steps,
        scheduler=entry.generation.scheduler,
        width=kind.width,
        height=kind.height,
        file_format="png",
        preview_every=0,
        delivery="inline",
    )
