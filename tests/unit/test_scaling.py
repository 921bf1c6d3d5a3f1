"""The formulas behind docs/scaling.md, against results that are known otherwise; and the page shows what they give."""

import random
from collections import OrderedDict
from pathlib import Path

import pytest

from tests.benchmarks import scaling

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


def test_the_share_that_waits_is_erlang_s() -> None:
    # M/M/1: the share of time in which the server is busy. M/M/2 with one busy on average: a third.
    assert scaling.erlang_c(1, 0.7) == pytest.approx(0.7)
    assert scaling.erlang_c(2, 1.0) == pytest.approx(1 / 3)


def test_the_mean_wait_of_one_server_is_that_of_m_m_1() -> None:
    assert scaling.mean_wait_s(1, 10.0, 0.5) == pytest.approx(10.0)
    assert scaling.utilisation_for(1, 10.0, 10.0) == pytest.approx(0.5)


def test_the_hit_rate_is_that_of_a_cache_that_is_asked() -> None:
    shares = scaling.popularity(500, 1.0)
    draw = random.Random(7)
    cache: OrderedDict[int, None] = OrderedDict()
    hits, asked = 0, draw.choices(range(500), shares.tolist(), k=60_000)
    for adapter in asked:
        hits += adapter in cache
        cache[adapter] = None
        cache.move_to_end(adapter)
        if len(cache) > 50:
            cache.popitem(last=False)
    assert scaling.hit_rate(shares, 50) == pytest.approx(hits / len(asked), abs=0.02)
    assert scaling.hit_rate(shares, 500) == 1.0


def test_the_page_shows_what_is_calculated(capsys: pytest.CaptureFixture[str]) -> None:
    scaling.main([])
    *tables, conclusion = capsys.readouterr().out.strip().split("\n\n")
    page = PAGE.read_text()
    assert len(tables) == 2
    assert all(table in page for table in tables)
    assert f"about {conclusion.split()[-3]} worker pods" in " ".join(page.split())
