"""`make bench`: the trainer's loop against the stock DreamBooth-LoRA loop on the bundled base, then end to end.

usage: python -m tests.benchmarks.training_speed [--rounds N] [--steps N] [--training-steps N] [--only loop|end-to-end]

First both loops are given the same start, examples, noise and learning rates, and must say the same losses. Then they
take turns, each by itself. Every figure is a ratio within this run; seconds are those of this machine at this time.
"""

import argparse
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

import torch

from base_models.catalog import BUNDLED, describe
from base_models.families.stable_diffusion import StableDiffusion
from tests.benchmarks.contest import OUR_OPTIMIZER, Contest
from tests.benchmarks.end_to_end import measure_end_to_end
from tests.benchmarks.interleaving import hardware, interleaved, ratio
from tests.benchmarks.stock_dreambooth import Flags
from trainer_service.training_config import Given

CPU = torch.device("cpu")
FILES = sorted((BUNDLED["toon-64"] / "sets" / "micah-b" / "train").glob("*.png"))
# The script at its defaults, but for the base's size; and the preset of toon-64, which the script has no flag for.
SETTINGS: dict[str, Given] = {
    "the script's defaults": {"batch_size": 4, "rank": 4, "targets": "attention", "learning_rate": 5e-4},
    "the preset of toon-64": {},
}


def measure_loops(name: str, given: Given, rounds: int, steps: int) -> None:
    """Print the table of one setting."""
    contest = Contest(describe("toon-64", BUNDLED["toon-64"]), CPU, FILES, given)
    config = contest.config
    print(f"\n## {name}: {config.targets}, rank {config.rank}, batch {config.batch_size}, {config.resolution} pixels\n")
    print(f"the same losses, at most {contest.compare_losses(config.batch_size):.1g} apart\n")
    with ExitStack() as worn:
        ours = worn.enter_context(contest.ours())
        peers = {
            "stock": contest.stock(OUR_OPTIMIZER).step,
            "stock, latents and embeddings cached": contest.stock(OUR_OPTIMIZER, cached=True).step,
            "and channels last": contest.stock(OUR_OPTIMIZER, cached=True, channels_last=True).step,
            "and fused AdamW": contest.stock(OUR_OPTIMIZER, cached=True, channels_last=True, fused_optimizer=True).step,
            "ours": ours.step,
        }
        times = interleaved(peers, rounds, steps)
    print("| loop | seconds a step | processor seconds | stock takes | by processor |\n| --- | --- | --- | --- | --- |")
    stock = times["stock"]
    for peer, found in times.items():
        more = (ratio(stock.clock_s, found.clock_s), ratio(stock.processor_s, found.processor_s))
        print(f"| {peer} | {found.in_words()} | {more[0]} x | {more[1]} x |", flush=True)


def measure_warmth(rounds: int) -> None:
    """Print what a warm worker does not do again."""
    imports, loads = [], []
    for _ in range(rounds):
        began_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import trainer_service.worker.run"], check=True)
        imports.append(time.perf_counter() - began_s)
        began_s = time.perf_counter()
        StableDiffusion(describe("toon-64", BUNDLED["toon-64"]), CPU)
        loads.append(time.perf_counter() - began_s)
    imported_s, loaded_s = statistics.median(imports), statistics.median(loads)
    print(f"\nA warm worker saves {imported_s:.1f} s of imports and {loaded_s:.1f} s of loading for every training.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="of a round")
    parser.add_argument("--training-steps", type=int, default=140, help="of the trainings end to end")
    parser.add_argument("--only", choices=("loop", "end-to-end"))
    arguments = parser.parse_args()
    print(hardware(CPU))
    if arguments.only != "end-to-end":
        print(f"Stock: {Flags()}, but for what each heading names and {OUR_OPTIMIZER}.")
        for name, given in SETTINGS.items():
            measure_loops(name, given, arguments.rounds, arguments.steps)
        measure_warmth(min(3, arguments.rounds))
    if arguments.only != "loop":
        measure_end_to_end(arguments.training_steps)


if __name__ == "__main__":
    main()
