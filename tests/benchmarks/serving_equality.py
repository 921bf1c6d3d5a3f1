"""That every contestant draws what plain diffusers draws with the same adapter, prompt and seed; else nothing is timed.

Equality of pictures: within 1/255 on 99.9 % of values, in float32. In 16 bits rounding is seen, so there a picture must
only be far nearer to its plain one than the plain ones are to each other, which differ by the adapter alone. These must
be further apart than equal ones, or adapters that do nothing would do.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils import logging as diffusers_logging
from numpy.typing import NDArray

from base_models.catalog import BaseModelEntry
from base_models.pipelines import load_pipeline
from tests.benchmarks.serving_contestants import Contestant
from tests.benchmarks.serving_engines.pipeline_engine import scheduler_for
from tests.benchmarks.serving_load import Kind, PlannedRequest
from tests.benchmarks.serving_turns import Asked

SAME = 0.999
"""Of all values, at least."""

CLOSE = 0.25
"""Of the least that an adapter changes, at most: how far a picture in 16 bits may be from its plain one."""

Pixels = NDArray[np.uint8]

_ADAPTERS = (None, 0, 1, 2)


def to_compare(kinds: Sequence[Kind]) -> list[PlannedRequest]:
    """The same prompt and seed without an adapter and with three, for each kind."""
    return [PlannedRequest(kind, adapter, "a character with a red hat", 7) for kind in kinds for adapter in _ADAPTERS]


def alike(found: Pixels, wanted: Pixels) -> float:
    """The share of values that are within one of 255 of each other."""
    return float((np.abs(found.astype(int) - wanted.astype(int)) <= 1).mean())


def apart(one: Pixels, other: Pixels) -> float:
    """How far their values are apart in the mean, of 255."""
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def drawn_plainly(
    entry: BaseModelEntry,
    device: torch.device,
    folder: Path,
    bodies: Sequence[bytes],
    requests: Sequence[PlannedRequest],
    dtype: torch.dtype = torch.float32,
) -> list[Pixels]:
    """What diffusers' own pipeline draws, one request after the other, with adapters from files in `folder`.

    The requests are those of `to_compare`: no two of a kind may give the same picture. Raises AssertionError.
    """
    # At every load diffusers says that the text encoder has no adapter, which is so.
    diffusers_logging.set_verbosity_error()
    pipeline: Any = load_pipeline(entry, device, dtype)
    pipeline.scheduler = scheduler_for(entry.generation.scheduler, dict(pipeline.scheduler.config))
    pictures = []
    for request in requests:
        if request.adapter is not None:
            (folder / "worn.safetensors").write_bytes(bodies[request.adapter])
            pipeline.load_lora_weights(folder, weight_name="worn.safetensors", adapter_name="worn")
        image = pipeline(
            request.prompt,
            generator=torch.Generator().manual_seed(request.seed),
            guidance_scale=entry.generation.guidance_scale,
            num_inference_steps=request.kind.steps,
            width=request.kind.width,
            height=request.kind.height,
        ).images[0]
        pictures.append(np.asarray(image))
        pipeline.unload_lora_weights()
    for one, other in combinations(range(len(requests)), 2):
        if requests[one].kind == requests[other].kind:
            assert alike(pictures[one], pictures[other]) < SAME, "adapters that change nothing prove nothing"
    return pictures


async def assert_equal(
    contestants: Mapping[str, Contestant], requests: Sequence[PlannedRequest], plain: Sequence[Pixels]
) -> float:
    """Ask every contestant for all of them at once; the least share of alike values. Raises AssertionError."""
    least = 1.0
    for name, contestant in contestants.items():
        for request, found, wanted in zip(requests, await _drawn(name, contestant, requests), plain, strict=True):
            share = alike(found, wanted)
            assert share >= SAME, f"{name} drew another picture ({share:.2%} of values alike) for {request}"
            least = min(least, share)
    return least


async def assert_close(
    contestants: Mapping[str, Contestant], requests: Sequence[PlannedRequest], plain: Sequence[Pixels]
) -> float:
    """The same in 16 bits, for requests of one kind: how far any was off, of the least that an adapter changes."""
    changed = min(apart(one, other) for one, other in combinations(plain, 2))
    most = 0.0
    for name, contestant in contestants.items():
        for request, found, wanted in zip(requests, await _drawn(name, contestant, requests), plain, strict=True):
            off = apart(found, wanted) / changed
            assert off <= CLOSE, f"{name} drew another picture ({off:.2f} of what an adapter changes) for {request}"
            most = max(most, off)
    return most


async def _drawn(name: str, contestant: Contestant, requests: Sequence[PlannedRequest]) -> list[Pixels]:
    asked = [Asked(request, time.perf_counter()) for request in requests]
    await asyncio.gather(*(contestant.ask(one) for one in asked))
    pictures = [one.pixels_HWC for one in asked if one.pixels_HWC is not None]
    assert len(pictures) == len(asked), f"{name} did not answer every request"
    return pictures
