"""What adapters cost a step: one forward pass of a full batch, with a different adapter for every image and with none.

usage: python -m tests.benchmarks.serving_step [--rounds N] [--images M]

In one process, taking turns, so that nothing but the adapters differs. Throughput over a port varies more than this.
"""

import argparse
import time

import torch

from base_models.catalog import BUNDLED, describe
from base_models.loading import load_base_model
from base_models.pipelines import adaptable_modules, load_pipeline
from tests.benchmarks.interleaving import hardware, spread
from tests.random_adapter import ALL, ATTENTION, random_adapter
from tests.unit.inference.quick_requests import quick_request
from tests.unit.inference.step_rows import StepRows

RANK = 8
KINDS = {"attention": ATTENTION, "all layers": ALL}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--images", type=int, default=16)
    budget = parser.parse_args()
    device = torch.device("cpu")
    entry = describe("toon-64", BUNDLED["toon-64"])
    modules = adaptable_modules(load_pipeline(entry, device, torch.float32))
    print(f"# A step with adapters\n\n{hardware(device)}\n")
    print(f"{entry.name}, {budget.images} images with guidance, each with an adapter of its own of rank {RANK}.\n")
    steps = StepRows(load_base_model(entry, device), batch=budget.images, slots=2 * budget.images)
    try:
        bodies = {
            kind: [random_adapter(modules, {"unet": targets}, seed, RANK) for seed in range(budget.images)]
            for kind, targets in KINDS.items()
        }
        times_s: dict[str, list[float]] = {"none": [], **{kind: [] for kind in KINDS}}
        for _ in range(budget.rounds + 1):
            for kind, seen in times_s.items():
                for seed in range(budget.images):
                    worn = [(bodies[kind][seed], 1.0)] if kind in bodies else []
                    steps.add(quick_request(seed, steps=2), worn)
                # The first step brings the adapters into their slots.
                steps.loop.step()
                began_s = time.perf_counter()
                steps.loop.step()
                seen.append(time.perf_counter() - began_s)
                steps.finished.clear()
    finally:
        steps.close()
    print("| adapters | ms a step | times that of none |\n| --- | --- | --- |")
    for kind, (_, *seen) in times_s.items():
        ratios = [one / other for one, other in zip(seen, times_s["none"][1:], strict=True)]
        print(f"| {kind} | {spread([1000 * one for one in seen], 0)} | {spread(ratios)} |")


if __name__ == "__main__":
    main()
