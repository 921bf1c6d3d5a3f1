"""How long callers wait at a load that is the same for all contestants; and what it costs that an adapter is missed."""

import math
import statistics
from collections.abc import Mapping, Sequence

from tests.benchmarks.interleaving import spread
from tests.benchmarks.serving_contestants import Contestant
from tests.benchmarks.serving_load import Kind, PlannedRequest, Popularity, arrivals_s, planned
from tests.benchmarks.serving_throughput import ratios
from tests.benchmarks.serving_turns import Turn, one_by_one, open_loop

Mix = Sequence[tuple[Kind, float]]


async def measure_latency(
    contestants: Mapping[str, Contestant],
    mix: Mix,
    adapters: int,
    popularity: Popularity,
    rate_per_s: float,
    cv: float,
    rounds: int,
    seconds: float,
) -> dict[str, list[Turn]]:
    """Offer each contestant in turn the same requests at the same times, for about `seconds` a turn."""
    turns: dict[str, list[Turn]] = {name: [] for name in contestants}
    requests = math.ceil(rate_per_s * seconds)
    for number in range(rounds):
        plan = planned(mix, adapters, popularity, requests, seed=number)
        times_s = arrivals_s(rate_per_s, cv, requests, seed=number)
        for name, contestant in contestants.items():
            turns[name].append(await open_loop(contestant.ask, plan, times_s))
    return turns


def latency_table(turns: Mapping[str, Sequence[Turn]], patience_s: float) -> str:
    """Lines of Markdown; percentiles are over the requests of all rounds."""
    lines = [
        f"| engine | p50 s | p95 s | p99 s | first progress, p50 and p95 in s | within {patience_s:.1f} s, images/s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in turns.items():
        every = together(found)
        waits = " | ".join(f"{every.latency_s(percent):.2f}" for percent in (50, 95, 99))
        firsts = ", ".join(f"{every.first_progress_after_s(percent):.2f}" for percent in (50, 95))
        goodput = spread([turn.goodput_per_s(patience_s) for turn in found], 2)
        lines.append(f"| {name} | {waits} | {firsts} | {goodput} |")
    return "\n".join(lines)


def together(turns: Sequence[Turn]) -> Turn:
    """All turns as one."""
    return Turn([one for turn in turns for one in turn.asked], sum(turn.seconds for turn in turns))


def p95_ratios(ones: Sequence[Turn], others: Sequence[Turn]) -> list[float]:
    """Round by round."""
    return ratios([turn.latency_s(95) for turn in ones], [turn.latency_s(95) for turn in others])


async def measure_misses(contestant: Contestant, kind: Kind, adapters: Sequence[int]) -> str:
    """Two cells: a request of one step whose adapter was never seen, and the same again; for adapters not seen yet."""
    quick = Kind("one step", kind.width, kind.height, 1)
    first, again = [], []
    for adapter in adapters:
        request = PlannedRequest(quick, adapter, "a character", seed=adapter)
        turn = await one_by_one(contestant.ask, [request, request])
        first.append(turn.asked[0].latency_s)
        again.append(turn.asked[1].latency_s)
    costs = statistics.median(one - other for one, other in zip(first, again, strict=True))
    return f"{spread(first)} | {spread(again)} | {costs:.3f}"
