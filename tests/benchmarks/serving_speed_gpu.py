"""`make bench-gpu`: the step engine against plain diffusers, on a GPU, with another adapter each request and with none.

usage: python -m tests.benchmarks.serving_speed_gpu [--rounds N] [--seconds S] [--waiting N] [--steps N]
           [--only sd15|sdxl|flux] [--tiny] [--out FILE] [--models FOLDER]

Random weights in the shapes of Stable Diffusion 1.5 at 512 pixels, SDXL and FLUX.1 dev at 1024, with the steps and the
guidance that are their defaults. Engines are called through their port, in this process. Plain diffusers keeps all
adapters, changes between them by `set_adapters`, and draws in one batch whatever one call of its pipeline can. First
both must draw the pictures of a pipeline that draws one by one; then they take turns in bfloat16. Needs torch,
diffusers and what the inference service's engine imports; no object store and no gRPC. Without a GPU it says so, and
that is no failure.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch

from base_models.catalog import BaseModelEntry
from inference_service.denoising.step_engine import StepEngine
from tests.benchmarks.counted_flop import counted_flop, utilisation
from tests.benchmarks.device_memory import allocated_bytes, forget_peak, in_gib, peak_bytes
from tests.benchmarks.gpu_models import RANK, Row, parsed, running_on, written
from tests.benchmarks.serving_contestants import Contestant, in_this_process
from tests.benchmarks.serving_engines.counters import CountingEngine
from tests.benchmarks.serving_engines.factories import OURS, PLAIN, plain_diffusers, step_engine
from tests.benchmarks.serving_equality import CLOSE, Pixels, assert_close, assert_equal, drawn_plainly, to_compare
from tests.benchmarks.serving_load import Kind, PlannedRequest, distinct, planned
from tests.benchmarks.serving_throughput import held_against, measure_throughput, ratios, throughput_table
from tests.benchmarks.serving_turns import Asked, one_by_one
from tests.random_adapter import random_adapter

# Room for as many adapters as may wait, of all layers.
_SLOT_BYTES = 8 * 2**30
_TINY_SLOT_BYTES = 2**24
# Small enough for layers of thousands; tiny ones need larger numbers to draw other pictures.
_SIZE, _TINY_SIZE = 0.02, 0.1
_MANY = 4096


@dataclass
class Running:
    """The engines that take turns, and what each holds of the device's memory, in bytes."""

    contestants: Mapping[str, Contestant]
    ours: StepEngine
    own: dict[str, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, help="of a turn")
    parser.add_argument("--waiting", type=int, help="requests, each for another adapter")
    parser.add_argument("--steps", type=int, help="of a request; default: the base model's")
    budget = parsed(parser, when_tiny={"rounds": 1, "seconds": 2.0, "waiting": 4, "steps": 2})
    with running_on(budget, "The speed of serving on a GPU") as device:
        for _, row, entry, scratch in written(budget):
            asyncio.run(_measure(row, entry, scratch, device, budget))


async def _measure(
    row: Row, entry: BaseModelEntry, folder: Path, device: torch.device, budget: argparse.Namespace
) -> None:
    size, waiting = entry.default_size, budget.waiting or row.waiting
    denoiser = entry.traits.denoiser
    targets = {denoiser: entry.traits.targets["attention"]}
    modules = {denoiser: _blank_denoiser(entry)}
    numbers = _TINY_SIZE if budget.tiny else _SIZE
    bodies = [random_adapter(modules, targets, seed, RANK, size=numbers) for seed in range(max(waiting, 3))]
    slot_bytes = _TINY_SLOT_BYTES if budget.tiny else _SLOT_BYTES
    requests = to_compare([Kind("few steps", size, size, 4)])
    compared_in, dtype = _number_formats(entry, device)
    with _without_tf32():
        plain = drawn_plainly(entry, device, folder, bodies, requests, compared_in)
    if compared_in != dtype:
        with _running(entry, compared_in, bodies[:3], device, slot_bytes) as running:
            await _compare(running, requests, plain, compared_in)

    kind = Kind("usual", size, size, budget.steps or entry.generation.steps)
    with _running(entry, dtype, bodies, device, slot_bytes) as running:
        if compared_in == dtype:
            await _compare(running, requests, plain, dtype)
        print(
            f"{size} pixels, {kind.steps} steps, guidance {entry.generation.guidance_scale:g}, {waiting} waiting, "
            f"adapters of rank {RANK} on attention.\n"
        )
        rows = 2 if entry.is_guided(entry.generation.guidance_scale) else 1
        forward = counted_flop(running.ours.base, size, RANK, entry.traits.targets["attention"]).forward
        flop = forward * rows * kind.steps
        for title, adapters in (("Without adapters", 0), ("Every request with another adapter", waiting)):
            print(f"{title}:\n")
            if adapters:
                await _wear_all(running, kind, adapters, device)
            plan = planned([(kind, 1.0)], adapters, distinct if adapters else None, _MANY, seed=1)
            plans = dict.fromkeys(running.contestants, plan)
            works = await measure_throughput(
                running.contestants, plans, budget.rounds, waiting, budget.seconds or row.turn_s
            )
            print(throughput_table(works, PLAIN), end="\n\n")
            print("| engine | TFLOP/s in its denoiser (MFU) | memory at most, GiB |\n| --- | --- | --- |")
            for name, work in works.items():
                used = utilisation(statistics.median(work.images_per_s) * flop, device)
                most = await _peak_bytes(running, name, kind, adapters, waiting, device)
                print(f"| {name} | {used} | {in_gib(most)} |")
            print(flush=True)
    print(
        f"An image is {flop / 1e12:.3g} TFLOP: {kind.steps} steps of {rows} forward passes of {forward / 1e12:.3g}, as "
        f"torch counts them on the meta device. Of our memory, {slot_bytes / 2**30:.2g} GiB are slots for adapters.\n"
    )
    if budget.tiny:
        return
    ours = works[OURS].images_per_s
    if row.images_per_s is not None:
        print(held_against("ours, images/s with adapters", ours, row.images_per_s, is_least=True))
    if row.times_plain is not None:
        times = ratios(ours, works[PLAIN].images_per_s)
        print(held_against(f"the same, times {PLAIN}", times, row.times_plain, is_least=True))


def _number_formats(entry: BaseModelEntry, device: torch.device) -> tuple[torch.dtype, torch.dtype]:
    """What pictures are compared in, which is float32 where two base models of it fit; and what is timed."""
    if device.type != "cuda":
        return torch.float32, torch.float32
    return getattr(torch, entry.traits.training_weights), torch.bfloat16


async def _compare(
    running: Running, requests: Sequence[PlannedRequest], plain: Sequence[Pixels], dtype: torch.dtype
) -> None:
    """Raises AssertionError where an engine draws what plain diffusers, one by one, did not."""
    with _without_tf32():
        if dtype == torch.float32:
            least = await assert_equal(running.contestants, requests, plain)
            said = f"in float32: at least {least:.2%} of values within 1/255"
        else:
            off = await assert_close(running.contestants, requests, plain)
            said = f"in bfloat16: off by at most {off:.1%} of the least that an adapter changes ({CLOSE:.0%} allowed)"
    print(f"The same pictures as plain diffusers one by one, {said}.\n", flush=True)


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Otherwise convolutions round to ten bits, and differently by batch size."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def _running(
    entry: BaseModelEntry, dtype: torch.dtype, bodies: Sequence[bytes], device: torch.device, slot_bytes: int
) -> Iterator[Running]:
    before = allocated_bytes(device)
    ours = step_engine(entry, dtype, slot_bytes)
    between = allocated_bytes(device)
    plain = plain_diffusers(entry, dtype)
    own = {OURS: between - before, PLAIN: allocated_bytes(device) - between}
    engines: dict[str, CountingEngine] = {PLAIN: plain, OURS: ours}
    try:
        contestants = {name: in_this_process(engine, entry, bodies) for name, engine in engines.items()}
        yield Running(contestants, ours, own)
    finally:
        for engine in engines.values():
            engine.close()


async def _wear_all(running: Running, kind: Kind, adapters: int, device: torch.device) -> None:
    """Have each engine wear every adapter once, which is no part of a turn; say what one takes."""
    quick = Kind("one step", kind.width, kind.height, 1)
    print("| engine | device memory of an adapter, MB | seconds until it was first worn |\n| --- | --- | --- |")
    for name, contestant in running.contestants.items():
        before, began_s = allocated_bytes(device), time.perf_counter()
        await one_by_one(contestant.ask, planned([(quick, 1.0)], adapters, distinct, adapters, seed=0))
        each_s = (time.perf_counter() - began_s) / adapters
        took = allocated_bytes(device) - before
        running.own[name] += took
        print(f"| {name} | {took / adapters / 1e6:.1f} | {each_s:.2f} |")
    print(flush=True)


async def _peak_bytes(
    running: Running, name: str, kind: Kind, adapters: int, waiting: int, device: torch.device
) -> int:
    """The most that an engine took while so many requests were drawn and decoded."""
    others = allocated_bytes(device) - running.own[name]
    short = Kind("two steps", kind.width, kind.height, 2)
    plan = planned([(short, 1.0)], adapters, distinct if adapters else None, waiting, seed=2)
    forget_peak(device)
    now_s = time.perf_counter()
    await asyncio.gather(*(running.contestants[name].ask(Asked(request, now_s)) for request in plan))
    return max(0, peak_bytes(device) - others)


def _blank_denoiser(entry: BaseModelEntry) -> Any:
    """Its layers without weights: loading tens of gigabytes would not tell more."""
    name = entry.traits.denoiser
    _, class_name = json.loads((entry.folder / "model_index.json").read_text())[name]
    denoiser_class = getattr(diffusers, class_name)
    with torch.device("meta"):
        return denoiser_class.from_config(denoiser_class.load_config(entry.folder / name))


if __name__ == "__main__":
    main()
