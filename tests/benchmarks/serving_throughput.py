"""How many pictures a second contestants make while a fixed number of requests waits, in turns; and how they do it."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.benchmarks.interleaving import spread
from tests.benchmarks.serving_contestants import Contestant
from tests.benchmarks.serving_engines.counters import Counted
from tests.benchmarks.serving_load import Kind, PlannedRequest, planned
from tests.benchmarks.serving_turns import Turn, closed_loop, one_by_one, percentile


@dataclass
class Work:
    """What one contestant did in all its turns."""

    turns: list[Turn] = field(default_factory=list)
    counted: list[Counted] = field(default_factory=list)

    @property
    def images_per_s(self) -> list[float]:
        """One number a round."""
        return [turn.images_per_s for turn in self.turns]

    @property
    def latencies_s(self) -> list[float]:
        """Of all requests that were seen through; the others were given up with their turn."""
        return [one.latency_s for turn in self.turns for one in turn.asked if one.finished_s is not None]

    def per_forward(self) -> tuple[float, float, float]:
        """Images and distinct adapters in a forward pass, and forward passes for an image; means over all turns.

        Raises ValueError where the turns were too short for any.
        """
        forwards = sum(counted.forwards for counted in self.counted)
        images = sum(turn.images_per_s * turn.seconds for turn in self.turns)
        if not forwards or not images:
            raise ValueError("the turns are too short: an engine did nothing in them")
        through = sum(counted.images for counted in self.counted)
        adapters = sum(counted.adapters for counted in self.counted)
        return through / forwards, adapters / forwards, forwards / images


async def measure_throughput(
    contestants: Mapping[str, Contestant],
    plans: Mapping[str, Sequence[PlannedRequest]],
    rounds: int,
    waiting: int,
    seconds: float,
) -> dict[str, Work]:
    """Each contestant's work on its plan, in turn, `rounds` times; a plan is gone on with where its last turn ended."""
    works = {name: Work() for name in contestants}
    left = {name: iter(plan) for name, plan in plans.items()}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            before = await contestant.counted()
            works[name].turns.append(await closed_loop(contestant.ask, left[name], waiting, seconds))
            works[name].counted.append((await contestant.counted()).since(before))
            await settle(contestant, plans[name][0].kind)
    return works


async def settle(contestant: Contestant, kind: Kind) -> None:
    """Wait until a contestant has let go of what was given up: until it has drawn a picture of one step."""
    quick = Kind("settling", kind.width, kind.height, 1)
    await one_by_one(contestant.ask, planned([(quick, 1.0)], 0, None, 1, seed=0))


def throughput_table(works: Mapping[str, Work], peer: str) -> str:
    """Lines of Markdown; ratios are to `peer`, of the same round."""
    lines = [
        f"| engine | images/s | of {peer} | p50, p95, p99 in s | images, adapters a forward | forwards an image |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, work in works.items():
        through, adapters, forwards = work.per_forward()
        seen = work.latencies_s
        waits = ", ".join(f"{percentile(seen, percent):.2f}" for percent in (50, 95, 99)) if seen else "none finished"
        of_peer = ratios(work.images_per_s, works[peer].images_per_s)
        per_s = f"{spread(work.images_per_s, 2)} | {spread(of_peer, 2)} x"
        lines.append(f"| {name} | {per_s} | {waits} | {through:.1f}, {adapters:.1f} | {forwards:.1f} |")
    return "\n".join(lines)


def ratios(ones: Sequence[float], others: Sequence[float]) -> list[float]:
    """Round by round."""
    return [one / other for one, other in zip(ones, others, strict=True)]


def held_against(what: str, found: Sequence[float], aim: float, is_least: bool) -> str:
    """A line that says whether the median meets what was asked for."""
    median = statistics.median(found)
    word, is_met = ("at least", median >= aim) if is_least else ("at most", median <= aim)
    return f"- {what}: {spread(found, 2)}; asked for: {word} {aim:g}: {'met' if is_met else 'NOT met'}"
