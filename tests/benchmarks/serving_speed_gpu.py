"""`make bench-gpu`: the step engine against what diffusers serves with, on a GPU, every request with another adapter.

usage: python -m tests.benchmarks.serving_speed_gpu [--rounds N] [--seconds S] [--adapters N] [--tiny]

Random weights in the shapes of Stable Diffusion 1.5 at 512 pixels and of SDXL at 1024, 30 steps with guidance;
engines are called through their port, in this process. First all draw plain diffusers' pictures in float32; then they
take turns in bfloat16. `--tiny` runs all of it on a model for any machine, for the sake of this file. Without a GPU it
says so, and that is no failure.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from base_models.catalog import BaseModelEntry, describe
from base_models.pipelines import adaptable_modules, load_pipeline
from tests.benchmarks.interleaving import hardware
from tests.benchmarks.random_base_model import (
    write_sdxl,
    write_stable_diffusion_15,
    write_tiny,
    write_tiny_sdxl,
)
from tests.benchmarks.serving_contestants import Contestant, in_this_process
from tests.benchmarks.serving_engines.counters import CountingEngine
from tests.benchmarks.serving_engines.factories import FACTORIES, MOST_TOGETHER, OURS, SET_ADAPTERS
from tests.benchmarks.serving_equality import assert_equal, drawn_plainly, to_compare
from tests.benchmarks.serving_load import Kind, distinct, planned
from tests.benchmarks.serving_throughput import Work, held_against, measure_throughput, ratios, throughput_table
from tests.benchmarks.serving_turns import one_by_one
from tests.random_adapter import ATTENTION, random_adapter

RANK = 16
TIMES_SET_ADAPTERS = 4.0
# Dense bfloat16 operations a second, from the makers' data sheets.
_PEAK = {"H100": 989e12, "H200": 989e12}
_MANY = 4096


@dataclass(frozen=True)
class Row:
    """A base model of the measurement."""

    write: Callable[[Path], None]
    write_tiny: Callable[[Path], None]
    forward_flop: float
    """Of the UNet, for one picture without guidance; a multiplication and an addition count as two."""
    images_per_s: float
    """The aim, on one H100 or H200."""


ROWS = {
    "sd15": Row(write_stable_diffusion_15, write_tiny, 0.80e12, 8.0),
    "sdxl": Row(write_sdxl, write_tiny_sdxl, 6.76e12, 1.1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="of a turn")
    parser.add_argument("--waiting", type=int, default=2 * MOST_TOGETHER)
    parser.add_argument("--adapters", type=int, default=64)
    parser.add_argument("--steps", type=int, help="of a request; default: the base model's")
    parser.add_argument("--tiny", action="store_true")
    budget = parser.parse_args()
    if not torch.cuda.is_available() and not budget.tiny:
        print("skipped: there is no GPU that torch can use here")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(hardware(device))
    for name, row in ROWS.items():
        print(f"\n## {name}, {budget.adapters} adapters of rank {RANK} on attention\n", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            (row.write_tiny if budget.tiny else row.write)(Path(folder, "base"))
            entry = describe("random", Path(folder, "base"))
            asyncio.run(_measure(row, entry, Path(folder), device, budget))


async def _measure(
    row: Row, entry: BaseModelEntry, folder: Path, device: torch.device, budget: argparse.Namespace
) -> None:
    modules = adaptable_modules(load_pipeline(entry, torch.device("cpu"), torch.float32))
    bodies = [random_adapter(modules, {"unet": ATTENTION}, seed, RANK) for seed in range(budget.adapters)]
    size = entry.default_size
    await _compare(entry, folder, device, bodies, [Kind("few steps", size, size, 4)])

    kind = Kind("usual", size, size, budget.steps or entry.generation.steps)
    with _running(entry, torch.bfloat16 if device.type == "cuda" else torch.float32, bodies) as contestants:
        print("| engine | device memory that each adapter took when it was first worn, MB |\n| --- | --- |")
        for name, contestant in contestants.items():
            print(f"| {name} | {await _memory_of_an_adapter(contestant, kind, budget.adapters, device) / 1e6:.1f} |")
        plan = planned([(kind, 1.0)], budget.adapters, distinct, _MANY, seed=1)
        plans = dict.fromkeys(contestants, plan)
        works = await measure_throughput(contestants, plans, budget.rounds, budget.waiting, budget.seconds)
    print(f"\n{size} pixels, {kind.steps} steps, {budget.waiting} waiting, every request another adapter:\n")
    print(throughput_table(works, SET_ADAPTERS), end="\n\n")
    ours = works[OURS].images_per_s
    print(held_against("images/s", ours, row.images_per_s, is_least=True))
    times = ratios(ours, works[SET_ADAPTERS].images_per_s)
    print(held_against(f"times {SET_ADAPTERS}", times, TIMES_SET_ADAPTERS, is_least=True))
    if device.type == "cuda" and not budget.tiny:
        print(_utilisation(works[OURS], row.forward_flop, torch.cuda.get_device_name(device)))


async def _compare(
    entry: BaseModelEntry, folder: Path, device: torch.device, bodies: Sequence[bytes], kinds: Sequence[Kind]
) -> None:
    # Otherwise convolutions round to ten bits, and differently by batch size.
    torch.backends.cudnn.allow_tf32 = False
    requests = to_compare(kinds)
    plain = drawn_plainly(entry, device, folder, bodies, requests)
    with _running(entry, torch.float32, bodies) as contestants:
        least = await assert_equal(contestants, requests, plain)
    print(
        f"The same pictures as plain diffusers in float32: at least {least:.2%} of values within 1/255.\n", flush=True
    )
    torch.backends.cudnn.allow_tf32 = True


@contextmanager
def _running(entry: BaseModelEntry, dtype: torch.dtype, bodies: Sequence[bytes]) -> Iterator[dict[str, Contestant]]:
    engines: Mapping[str, CountingEngine] = {name: make(entry, dtype) for name, make in FACTORIES.items()}
    try:
        yield {name: in_this_process(engine, entry, bodies) for name, engine in engines.items()}
    finally:
        for engine in engines.values():
            engine.close()


async def _memory_of_an_adapter(contestant: Contestant, kind: Kind, adapters: int, device: torch.device) -> float:
    """In bytes, of all together by their number; what was set aside before is not in it."""
    quick = Kind("one step", kind.width, kind.height, 1)
    # The first request pays for what is no adapter.
    await one_by_one(contestant.ask, planned([(quick, 1.0)], 0, None, 1, seed=0))
    before = _allocated_bytes(device)
    await one_by_one(contestant.ask, planned([(quick, 1.0)], adapters, distinct, adapters, seed=0))
    return (_allocated_bytes(device) - before) / adapters


def _allocated_bytes(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _utilisation(work: Work, forward_flop: float, gpu: str) -> str:
    """With guidance an image is two rows of the UNet's."""
    images = sum(counted.images for counted in work.counted)
    flop_per_s = 2 * forward_flop * images / sum(turn.seconds for turn in work.turns)
    peak = next((peak for name, peak in _PEAK.items() if name in gpu), None)
    share = f", {flop_per_s / peak:.0%} of {peak / 1e12:.0f} (MFU)" if peak is not None else ""
    return f"- ours: {flop_per_s / 1e12:.0f} TFLOP/s in its UNet alone{share}"


if __name__ == "__main__":
    main()
