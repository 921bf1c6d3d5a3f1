"""`make bench-gpu`: the trainer's loop against the stock DreamBooth-LoRA loops, on a GPU.

usage: python -m tests.benchmarks.training_speed_gpu [--rounds N] [--steps N] [--training-steps N]
           [--only sd15|sdxl|flux] [--tiny] [--out FILE] [--models FOLDER]

Random weights, rank 16. Stable Diffusion 1.5 at 512 pixels, batch 4: the stock loop at its defaults, in float32. SDXL
at 1024, batch 4, and FLUX.1 dev at 1024, batch 1: the stock loop in bfloat16, as ours is. Stock encodes in every step;
ours has everything cached. First both loops must say the same losses. Needs torch, diffusers and what the trainer's
worker imports; no object store and no gRPC. Without a GPU it says so, and that is no failure.
"""

import argparse
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from base_models.adapters.adapter_file import write_adapter
from base_models.catalog import BUNDLED, BaseModelEntry
from service_kit.memory_store import MemoryStore
from tests.benchmarks.contest import Contest
from tests.benchmarks.counted_flop import counted_flop, utilisation
from tests.benchmarks.device_memory import allocated_bytes, forget_peak, in_gib, peak_bytes
from tests.benchmarks.gpu_models import RANK, Row, parsed, running_on, written
from tests.benchmarks.interleaving import interleaved, ratio, spread

_SET = BUNDLED["toon-64"] / "sets" / "micah-b" / "train"


@dataclass
class Whole:
    """One training of ours: seconds by part."""

    seconds: dict[str, float]
    steps: int

    def take(self, contest: Contest) -> None:
        """Carry it out."""
        device = contest.base.device
        with contest.ours(steps=self.steps) as loop:
            began_s = time.perf_counter()
            loop.step()
            _wait(device)
            self.seconds["building, first step"] = time.perf_counter() - began_s
            began_s = time.perf_counter()
            for _ in range(self.steps - 1):
                loop.step()
            _wait(device)
            self.seconds["steps"] = time.perf_counter() - began_s
            began_s = time.perf_counter()
            MemoryStore().put("adapter", write_adapter(loop.learned().adapter, 1.0))
            self.seconds["adapter file, upload into memory"] = time.perf_counter() - began_s

    def table(self) -> str:
        """Lines of Markdown."""
        rows = [f"| {part} | {seconds:.2f} |" for part, seconds in self.seconds.items()]
        return "\n".join(
            ("| part | seconds |", "| --- | --- |", *rows, f"| in all | {sum(self.seconds.values()):.2f} |")
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="of a round")
    parser.add_argument("--training-steps", type=int, help="of the training that is taken apart")
    arguments = parsed(parser, when_tiny={"rounds": 1, "steps": 1, "training_steps": 2})
    with running_on(arguments, "The speed of training on a GPU") as device:
        for _, row, entry, scratch in written(arguments):
            _measure(row, entry, scratch, device, arguments)


def _measure(
    row: Row, entry: BaseModelEntry, scratch: Path, device: torch.device, arguments: argparse.Namespace
) -> None:
    files = _pictures(scratch / "pictures", entry.default_size)
    given = {"rank": RANK, "batch_size": row.batch_size, "targets": "attention", "learning_rate": row.learning_rate}
    contest = Contest(entry, device, files, given)
    config = contest.config
    print(
        f"Stock: rank {config.rank}, batch {config.batch_size}, {config.resolution} pixels, mixed precision "
        f"{row.stock_precision}; ours: the same, {config.precision}.\n"
    )
    print(f"The same losses, in {contest.compared_in}, batch {row.compared_batch}:\n")
    apart = contest.compare_losses(row.compared_batch)
    print(f"\nat most {apart:.1g} apart, of {contest.same:g} allowed\n", flush=True)
    flop = counted_flop(contest.base, config.resolution, config.rank, contest.base.lora_modules(config.targets))

    whole = Whole(dict(contest.seconds), arguments.training_steps or row.training_steps)
    # The first is without the other loop, whose base model takes as much again.
    forget_peak(device)
    whole.take(contest)
    peaks = {"ours": peak_bytes(device)}
    with ExitStack() as worn:
        held = allocated_bytes(device)
        stock = contest.stock(row.stock_flags, mixed_precision=row.stock_precision)
        forget_peak(device)
        stock.step()
        peaks["stock"] = peak_bytes(device) - held
        # Made after the other, because ours reads accelerate's one precision in every step, and the other only now.
        ours = worn.enter_context(contest.ours())
        times = interleaved({"stock": stock.step, "ours": ours.step}, arguments.rounds, arguments.steps)
    print("| loop | seconds a step | processor seconds | samples/s | TFLOP/s (MFU) | memory at most, GiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for peer, found in times.items():
        samples_per_s = [config.batch_size / seconds for seconds in found.clock_s]
        used = utilisation(flop.training * sorted(samples_per_s)[len(samples_per_s) // 2], device)
        speed = f"{found.in_words()} | {spread(samples_per_s, 2)} | {used}"
        print(f"| {peer} | {speed} | {in_gib(peaks[peer])} |")
    print(f"\nstock takes {ratio(times['stock'].clock_s, times['ours'].clock_s)} x as long\n")
    print(
        f"A sample is {flop.training / 1e12:.3g} TFLOP, counted by torch on the meta device: its forward pass through "
        f"the denoiser ({flop.forward / 1e12:.3g}) and the backward pass to the layers that learn. Neither encoding "
        "nor what is computed twice counts.\n"
    )
    print(f"A whole training of ours, {whole.steps} steps:\n\n{whole.table()}", flush=True)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _pictures(folder: Path, size: int) -> list[Path]:
    """The bundled pictures and their captions, at the size of the base model."""
    folder.mkdir()
    for path in sorted(_SET.glob("*.png")):
        Image.open(path).convert("RGB").resize((size, size)).save(folder / path.name)
        (folder / f"{path.stem}.txt").write_text(path.with_suffix(".txt").read_text())
    return sorted(folder.glob("*.png"))


if __name__ == "__main__":
    main()
