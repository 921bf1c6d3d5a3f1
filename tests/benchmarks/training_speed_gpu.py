"""`make bench-gpu`: the trainer's loop against the stock DreamBooth-LoRA loops, on a GPU.

usage: python -m tests.benchmarks.training_speed_gpu [--rounds N] [--steps N] [--training-steps N]
           [--only sd15|sdxl] [--tiny]

Random weights, rank 16, batch 4. Stable Diffusion 1.5 at 512 pixels: the stock loop at its defaults, in float32. SDXL
at 1024: the stock loop in bfloat16, as ours is. Both encode in every step; ours have everything cached. First both
loops must say the same losses. `--tiny` runs all of it on models that any machine can train, for the sake of this file.
Without a GPU it says so, and that is no failure.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from base_models.adapter_file import write_adapter
from base_models.catalog import BUNDLED, describe
from service_kit.memory_store import MemoryStore
from tests.benchmarks.contest import Contest
from tests.benchmarks.interleaving import hardware, interleaved, ratio
from tests.benchmarks.random_base_model import write_sdxl, write_stable_diffusion_15, write_tiny, write_tiny_sdxl
from tests.benchmarks.stock_dreambooth import Flags

_SET = BUNDLED["toon-64"] / "sets" / "micah-b" / "train"
_GIVEN = {"rank": 16, "batch_size": 4, "targets": "attention"}


@dataclass(frozen=True)
class Row:
    """A base model of the measurement."""

    write: Callable[[Path], None]
    write_tiny: Callable[[Path], None]
    learning_rate: float
    stock_precision: str
    """The stock script's flag `mixed_precision`."""
    compared_batch: int
    """The batch of the loops that must say the same, whose float32 activations all have to be kept."""
    forward_flop: float
    """Of the UNet, for one picture of the default size, a multiplication and an addition counting as two."""


ROWS = {
    "sd15": Row(write_stable_diffusion_15, write_tiny, Flags().learning_rate, "no", 4, 0.80e12),
    "sdxl": Row(write_sdxl, write_tiny_sdxl, 1e-4, "bf16", 1, 6.76e12),
}
TRAINING_COST = 2.1
"""Times a forward pass: forward, and backward to activations; without gradient checkpointing."""
# Dense bfloat16 operations a second, from the makers' data sheets.
_PEAK = {"H100": 989e12, "H200": 989e12}


@dataclass(frozen=True)
class Whole:
    """One training of ours: seconds by part, and the most memory that its tensors took, in bytes."""

    seconds: dict[str, float]
    peak_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="of a round")
    parser.add_argument("--training-steps", type=int, default=500, help="of the training that is taken apart")
    parser.add_argument("--only", choices=tuple(ROWS))
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.tiny:
        print("skipped: there is no GPU that torch can use here")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(hardware(device))
    for name, row in ROWS.items():
        if arguments.only in (None, name):
            print(f"\n## {name}\n", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                _measure(row, Path(folder), device, arguments)


def _measure(row: Row, folder: Path, device: torch.device, arguments: argparse.Namespace) -> None:
    write = row.write_tiny if arguments.tiny else row.write
    write(folder / "base")
    entry = describe("random", folder / "base")
    files = _pictures(folder / "pictures", entry.default_size)
    contest = Contest(entry, device, files, _GIVEN | {"learning_rate": row.learning_rate})
    config = contest.config
    print(
        f"Stock: rank {config.rank}, batch {config.batch_size}, {config.resolution} pixels, mixed precision "
        f"{row.stock_precision}; ours: the same, {config.precision}.\n"
    )
    print(f"The same losses, in float32, batch {row.compared_batch}:")
    print(f"at most {contest.compare_losses(row.compared_batch):.1g} apart\n")

    whole = _train_whole(contest, arguments.training_steps)
    with ExitStack() as worn:
        stock = contest.stock({}, mixed_precision=row.stock_precision)
        # Made after the other, because ours reads accelerate's one precision in every step, and the other only now.
        ours = worn.enter_context(contest.ours())
        times = interleaved({"stock": stock.step, "ours": ours.step}, arguments.rounds, arguments.steps)
    print("| loop | seconds a step | processor seconds |\n| --- | --- | --- |")
    for peer, found in times.items():
        print(f"| {peer} | {found.in_words()} |")
    print(f"\nstock takes {ratio(times['stock'].clock_s, times['ours'].clock_s)} x as long\n")

    print(f"A whole training of ours, {arguments.training_steps} steps:\n\n| part | seconds |\n| --- | --- |")
    for part, seconds in whole.seconds.items():
        print(f"| {part} | {seconds:.2f} |")
    print(f"| in all | {sum(whole.seconds.values()):.2f} |\n\nmemory: {whole.peak_bytes / 2**30:.1f} GiB at most")
    if not arguments.tiny:
        done = row.forward_flop * TRAINING_COST * config.batch_size * (arguments.training_steps - 1)
        print(_utilisation(done / whole.seconds["steps"], torch.cuda.get_device_name(device)))


def _train_whole(contest: Contest, steps: int) -> Whole:
    seconds = dict(contest.seconds)
    device = contest.base.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contest.ours(steps=steps) as loop:
        began_s = time.perf_counter()
        loop.step()
        _wait(device)
        seconds["building, first step"] = time.perf_counter() - began_s
        began_s = time.perf_counter()
        for _ in range(steps - 1):
            loop.step()
        _wait(device)
        seconds["steps"] = time.perf_counter() - began_s
        began_s = time.perf_counter()
        body = write_adapter(loop.learned().adapter, 1.0)
        MemoryStore().put("adapter", body)
        seconds["adapter file, upload into memory"] = time.perf_counter() - began_s
    return Whole(seconds, torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _utilisation(flop_per_s: float, gpu: str) -> str:
    peak = next((peak for name, peak in _PEAK.items() if name in gpu), None)
    share = f", {flop_per_s / peak:.0%} of {peak / 1e12:.0f} (MFU)" if peak is not None else ""
    return f"steps: {flop_per_s / 1e12:.0f} TFLOP/s{share}"


def _pictures(folder: Path, size: int) -> list[Path]:
    """The bundled pictures and their captions, at the size of the base model."""
    folder.mkdir()
    for path in sorted(_SET.glob("*.png")):
        Image.open(path).convert("RGB").resize((size, size)).save(folder / path.name)
        (folder / f"{path.stem}.txt").write_text(path.with_suffix(".txt").read_text())
    return sorted(folder.glob("*.png"))


if __name__ == "__main__":
    main()
