"""Turns of the serving benchmark: who is sent when, and what figures come of it."""

import asyncio
import math
import time

import pytest

from tests.benchmarks.serving_load import Kind, PlannedRequest
from tests.benchmarks.serving_turns import Asked, Turn, closed_loop, one_by_one, open_loop, percentile

KIND = Kind("usual", 64, 64, 10)


def requests(count: int, kind: Kind = KIND) -> list[PlannedRequest]:
    return [PlannedRequest(kind, None, "a character", seed) for seed in range(count)]


def ended(latency_s: float, kind: Kind = KIND) -> Asked:
    return Asked(requests(1, kind)[0], due_s=5.0, first_progress_s=5.1, finished_s=5.0 + latency_s)


class Server:
    """Draws one picture at a time; how many were waiting is remembered."""

    def __init__(self, image_s: float) -> None:
        self.image_s = image_s
        self.seeds: list[int] = []
        self.waiting = self.most_waiting = 0
        self._drawing = asyncio.Lock()

    async def ask(self, asked: Asked) -> None:
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        try:
            async with self._drawing:
                self.seeds.append(asked.request.seed)
                asked.first_progress_s, asked.share_done = time.perf_counter(), 0.5
                await asyncio.sleep(self.image_s)
                asked.finished_s = time.perf_counter()
        finally:
            self.waiting -= 1


def test_a_closed_loop_keeps_so_many_waiting_and_gives_up_the_rest() -> None:
    async def scenario() -> tuple[Server, Turn]:
        server = Server(image_s=0.05)
        return server, await closed_loop(server.ask, requests(1000), waiting=4, seconds=1.0)

    server, turn = asyncio.run(scenario())
    assert server.most_waiting == 4
    assert server.waiting == 0
    assert turn.seconds == pytest.approx(1.0)
    finished = [one for one in turn.asked if one.finished_s is not None]
    assert 2 <= len(finished) <= 20
    assert len(turn.asked) == len(finished) + 4
    # The one that was being drawn counts by half of its steps.
    assert turn.images_per_s == pytest.approx(len(finished) + 0.5)


def test_a_closed_loop_ends_where_its_requests_do() -> None:
    async def scenario() -> Turn:
        return await closed_loop(Server(image_s=0.0).ask, requests(6), waiting=4, seconds=60.0)

    turn = asyncio.run(scenario())
    assert [one.finished_s is not None for one in turn.asked] == [True] * 6
    assert turn.seconds < 60


def test_a_closed_loop_does_not_go_on_where_it_is_refused() -> None:
    async def refuse(asked: Asked) -> None:
        await asyncio.sleep(0)

    with pytest.raises(ExceptionGroup, match="unhandled errors") as raised:
        asyncio.run(closed_loop(refuse, requests(10), waiting=1, seconds=60.0))
    assert "refused" in str(raised.value.exceptions[0])


def test_an_open_loop_sends_on_time_however_many_wait_and_counts_from_then() -> None:
    async def scenario() -> tuple[Server, Turn]:
        server = Server(image_s=0.2)
        return server, await open_loop(server.ask, requests(5), [0.0, 0.01, 0.02, 0.03, 0.04])

    server, turn = asyncio.run(scenario())
    assert server.most_waiting == 5
    assert server.seeds == [0, 1, 2, 3, 4]
    assert [one.latency_s for one in turn.asked] == sorted(one.latency_s for one in turn.asked)
    assert turn.asked[4].latency_s >= 5 * 0.2 - 0.04
    assert turn.asked[4].first_progress_after_s >= 4 * 0.2 - 0.04


def test_one_by_one_nobody_waits_for_another() -> None:
    async def scenario() -> Server:
        server = Server(image_s=0.0)
        await one_by_one(server.ask, requests(5))
        return server

    assert asyncio.run(scenario()).most_waiting == 1


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert percentile([3.0], 50) == 3.0


def test_figures_count_those_that_were_refused_as_endless() -> None:
    turn = Turn([ended(1.0), ended(2.0), ended(9.0), Asked(requests(1)[0], due_s=5.0)], seconds=2.0)
    assert turn.latency_s(50) == 2.0
    assert turn.latency_s(99) == math.inf
    assert turn.images_per_s == 1.5
    assert turn.goodput_per_s(patience_s=2.0) == 1.0


def test_those_who_asked_for_small_ones_are_seen_apart() -> None:
    small, large = Kind("small", 64, 64, 10), Kind("large", 128, 128, 20)
    turn = Turn([ended(1.0, small), ended(8.0, large), ended(2.0, small)], seconds=10.0)
    assert turn.of_kind("small").latency_s(100) == 2.0
    assert turn.of_kind("large").latency_s(50) == 8.0
