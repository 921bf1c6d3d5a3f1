"""`make bench`: the inference service against what diffusers serves with, many adapters, over real ports.

usage: python -m tests.benchmarks.serving_speed [--rounds N] [--seconds S] [--adapters N] [--output FILE] ...

Contestants, a process each: `load_lora_weights` for every request; all adapters resident and `set_adapters`; the same
grouped by adapter, which is the strong peer; ours; and ours without adapters, its upper bound. First each must draw the
plain pipeline's pictures. Then they take turns. Every figure is a ratio within this run.
"""

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from base_models.catalog import BUNDLED, BaseModelEntry, describe
from base_models.pipelines import adaptable_modules, load_pipeline
from tests.benchmarks.interleaving import hardware, spread
from tests.benchmarks.printing import printing_to
from tests.benchmarks.serving_contestants import Contestant, adapter_name
from tests.benchmarks.serving_engines.factories import FACTORIES, GROUPED, MOST_TOGETHER, OURS
from tests.benchmarks.serving_equality import assert_equal, drawn_plainly, to_compare
from tests.benchmarks.serving_latency import (
    Mix,
    latency_table,
    measure_latency,
    measure_misses,
    p95_ratios,
    together,
)
from tests.benchmarks.serving_load import Kind, distinct, identical, planned, power_law, uniform, zipf
from tests.benchmarks.serving_over_the_wire import over_the_wire, running_services
from tests.benchmarks.serving_throughput import held_against, measure_throughput, ratios, throughput_table
from tests.benchmarks.serving_turns import one_by_one
from tests.bucket_adapters import publish
from tests.random_adapter import ATTENTION, random_adapter
from tests.real_store import running_store

CPU = torch.device("cpu")
UPPER_BOUND = "ours, no adapters"
RANK = 8
NEW_ADAPTERS = 3
"""Published for nothing but to be missed."""
LOAD = 0.8
"""Of the most that the grouped engine sustains."""
PATIENCE = 5.0
"""For goodput: times what a request takes that is alone, grouped by adapter."""
POPULARITIES = {"Zipf 1.5": zipf(1.5), "power law 0.3": power_law(0.3), "identical": identical, "distinct": distinct}
# More than any turn can use up.
_MANY = 4096


class Bench:
    """The contestants that stand ready, and how long each measurement may take."""

    def __init__(
        self, entry: BaseModelEntry, contestants: Mapping[str, Contestant], budget: argparse.Namespace
    ) -> None:
        size, steps = entry.default_size, budget.steps or entry.generation.steps
        self.kind = Kind("usual", size, size, steps)
        small, large = Kind("small", size, size, max(2, steps // 2)), Kind("large", 2 * size, 2 * size, steps)
        self.small_among_large: Mix = [(small, 0.85), (large, 0.15)]
        self.contestants = contestants
        self.two = {name: contestants[name] for name in (GROUPED, OURS)}
        self.budget = budget

    async def warm_up(self) -> float:
        """Show every adapter to every contestant; then what a request takes alone, in seconds."""
        quick = Kind("one step", self.kind.width, self.kind.height, 1)
        plan = planned([(quick, 1.0)], self.budget.adapters, distinct, self.budget.adapters, seed=0)
        # One after the other: several processes that compute with all cores at once slow each other down tenfold.
        for contestant in self.contestants.values():
            await one_by_one(contestant.ask, plan)
        alone = planned([(self.kind, 1.0)], self.budget.adapters, uniform, 3, seed=0)
        turn = await one_by_one(self.contestants[GROUPED].ask, alone)
        return statistics.median(one.latency_s for one in turn.asked)

    async def throughput(self) -> None:
        """Uniform popularity, everybody."""
        budget, peers = self.budget, {**self.contestants, UPPER_BOUND: self.contestants[OURS]}
        plans = {
            name: planned([(self.kind, 1.0)], budget.adapters, None if name == UPPER_BOUND else uniform, _MANY, seed=1)
            for name in peers
        }
        works = await measure_throughput(peers, plans, budget.rounds, budget.waiting, budget.seconds)
        print(f"\n## Throughput: {budget.waiting} requests waiting, uniform popularity\n")
        print(throughput_table(works, GROUPED), end="\n\n")
        ours = works[OURS].images_per_s
        print(held_against(f"ours, times {GROUPED}", ratios(ours, works[GROUPED].images_per_s), 1.5, is_least=True))
        print(held_against("ours, of its upper bound", ratios(ours, works[UPPER_BOUND].images_per_s), 0.85, True))

    async def popularities(self) -> None:
        """The two strongest, one round each."""
        for name, popularity in POPULARITIES.items():
            plan = planned([(self.kind, 1.0)], self.budget.adapters, popularity, _MANY, seed=2)
            works = await measure_throughput(
                self.two, dict.fromkeys(self.two, plan), 1, self.budget.waiting, self.budget.seconds
            )
            print(f"\n## Throughput: {name}\n\n{throughput_table(works, GROUPED)}", flush=True)

    async def latency(self, title: str, mix: Mix, sustained: float, patience_s: float, of: str, aim: float) -> None:
        """The two strongest at one load; `of` is the kind whose wait is held against the aim."""
        rate, budget = LOAD * sustained, self.budget
        turns = await measure_latency(
            self.two, mix, budget.adapters, uniform, rate, budget.cv, budget.rounds, budget.load_seconds
        )
        print(f"\n## {title}: {rate:.2f} requests/s, {LOAD:.0%} of what {GROUPED} sustains, cv {budget.cv:g}")
        for kind, _ in mix:
            seen = {name: [turn.of_kind(kind.name) for turn in found] for name, found in turns.items()}
            print(f"\n{kind.name} ({kind.width} pixels, {kind.steps} steps), {len(together(seen[OURS]).asked)} each:\n")
            print(latency_table(seen, patience_s), flush=True)
            if kind.name == of:
                whole = together(seen[OURS]).latency_s(95) / together(seen[GROUPED]).latency_s(95)
                print(f"\n- p95, of {GROUPED}'s, by round: {spread(p95_ratios(seen[OURS], seen[GROUPED]), 2)}")
                print(held_against(f"p95, of {GROUPED}'s, all rounds together", [whole], aim, is_least=False))

    async def sustained(self, mix: Mix) -> float:
        """Requests a second that the grouped engine makes of a mix, with as many waiting as may."""
        plans = {GROUPED: planned(mix, self.budget.adapters, uniform, _MANY, seed=3)}
        grouped = {GROUPED: self.contestants[GROUPED]}
        # Long, because few large requests decide.
        works = await measure_throughput(grouped, plans, 1, self.budget.waiting, 3 * self.budget.seconds)
        return works[GROUPED].images_per_s[0]

    async def misses(self) -> None:
        """What a request pays whose adapter lies in the bucket only."""
        new = range(self.budget.adapters, self.budget.adapters + NEW_ADAPTERS)
        print("\n## A miss: requests of one step\n\n| engine | never seen, s | again, s | a miss costs, s |")
        print("| --- | --- | --- | --- |")
        for name, contestant in self.contestants.items():
            print(f"| {name} | {await measure_misses(contestant, self.kind, new)} |", flush=True)


async def _measure(bench: Bench, only: str | None) -> None:
    alone_s = await bench.warm_up()
    print(f"a request alone, with {GROUPED}: {alone_s:.2f} s")
    if only != "latency":
        await bench.throughput()
        await bench.popularities()
    if only == "throughput":
        return
    usual: Mix = [(bench.kind, 1.0)]
    sustained = await bench.sustained(usual)
    await bench.latency("Latency", usual, sustained, PATIENCE * alone_s, "usual", 0.6)
    mix = bench.small_among_large
    sustained = await bench.sustained(mix)
    await bench.latency("Small among large", mix, sustained, PATIENCE * alone_s, "small", 0.4)
    await bench.misses()


def _adapter_files(entry: BaseModelEntry, count: int) -> list[bytes]:
    modules = adaptable_modules(load_pipeline(entry, CPU, torch.float32))
    return [random_adapter(modules, {"unet": ATTENTION}, seed, RANK) for seed in range(count)]


def _run(budget: argparse.Namespace, folder: Path) -> None:
    entry = describe("toon-64", BUNDLED["toon-64"])
    print(f"# Serving\n\n{hardware(CPU)}\n")
    print(
        f"{entry.name}, {budget.adapters} adapters of rank {RANK} on attention, at most {MOST_TOGETHER} images a batch."
    )
    bodies = _adapter_files(entry, budget.adapters + NEW_ADAPTERS)

    async def compare_and_measure(addresses: Mapping[str, tuple[str, str]]) -> None:
        contestants = {name: over_the_wire(*where) for name, where in addresses.items()}
        bench = Bench(entry, contestants, budget)
        requests = to_compare([bench.kind, *(kind for kind, _ in bench.small_among_large)])
        least = await assert_equal(contestants, requests, drawn_plainly(entry, CPU, folder, bodies, requests))
        print(f"\nThe same pictures as plain diffusers: at least {least:.2%} of values within 1/255.\n", flush=True)
        await _measure(bench, budget.only)

    with running_store(folder) as store:
        digest = entry.digest()
        for number, body in enumerate(bodies):
            publish(store.store, adapter_name(number), body, entry.name, digest)
        settings = {"PERSONAE_BASE_MODELS": entry.name}
        names = [GROUPED, OURS] if budget.only == "latency" else list(FACTORIES)
        with running_services(names, store, folder, settings) as addresses:
            asyncio.run(compare_and_measure(addresses))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="of a turn with a fixed number waiting")
    parser.add_argument("--load-seconds", type=float, default=36, help="of a turn in which requests arrive")
    parser.add_argument("--waiting", type=int, default=32)
    parser.add_argument("--adapters", type=int, default=64)
    parser.add_argument("--steps", type=int, help="of the usual request; default: the base model's")
    parser.add_argument("--cv", type=float, default=1.0, help="of the gaps between arrivals; more comes in bursts")
    parser.add_argument("--only", choices=("throughput", "latency"), help="one half; default: both")
    parser.add_argument("--output", type=Path, help="a file that what is printed is added to")
    budget = parser.parse_args()
    with printing_to(budget.output), tempfile.TemporaryDirectory() as name:
        _run(budget, Path(name))


if __name__ == "__main__":
    main()
