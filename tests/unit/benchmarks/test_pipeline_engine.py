"""The baselines of the serving benchmark: they draw plain diffusers' pictures, and share batches as they say."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from base_models.catalog import BaseModelEntry, describe
from base_models.pipelines import adaptable_modules, load_pipeline
from inference_service.engine import AppliedAdapter, HostAdapter
from inference_service.generation import ImageTask
from service_kit.names import AdapterVersionName
from tests.benchmarks.random_base_model import write_tiny
from tests.benchmarks.serving_contestants import Contestant, in_this_process
from tests.benchmarks.serving_engines.factories import FACTORIES, GROUPED, RELOADING, SET_ADAPTERS
from tests.benchmarks.serving_engines.pipeline_engine import Caller, Wanted, by_adapters, by_caller, next_batch
from tests.benchmarks.serving_equality import assert_equal, drawn_plainly, to_compare
from tests.benchmarks.serving_load import Kind, PlannedRequest
from tests.benchmarks.serving_turns import Asked
from tests.random_adapter import ATTENTION, random_adapter
from tests.unit.inference.quick_requests import quick_request

# Of the benches, which assert the same of what they time.
pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
KIND = Kind("few steps", 64, 64, 3)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> BaseModelEntry:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    return describe("tiny", folder)


@pytest.fixture(scope="module")
def bodies(tiny: BaseModelEntry) -> list[bytes]:
    modules = adaptable_modules(load_pipeline(tiny, CPU, torch.float32))
    return [random_adapter(modules, {"unet": ATTENTION}, seed, rank=8) for seed in range(3)]


@contextmanager
def running(name: str, entry: BaseModelEntry, bodies: Sequence[bytes]) -> Iterator[Contestant]:
    engine = FACTORIES[name](entry, torch.float32)
    try:
        yield in_this_process(engine, entry, bodies)
    finally:
        engine.close()


def ask_at_once(contestant: Contestant, adapters: Sequence[int | None], steps: int = 3) -> list[Asked]:
    """Requests that are sent while another is drawn, so that all of them wait together."""
    kind = Kind("few steps", 64, 64, steps)
    asked = [
        Asked(PlannedRequest(kind, adapter, "a hat", seed), time.perf_counter())
        for seed, adapter in enumerate(adapters)
    ]

    async def scenario() -> None:
        first = Asked(PlannedRequest(Kind("first", 32, 32, 20), None, "a hat", 0), time.perf_counter())
        drawing = asyncio.ensure_future(contestant.ask(first))
        while first.first_progress_s is None:
            await asyncio.sleep(0)
        await asyncio.gather(*(contestant.ask(one) for one in asked))
        await drawing

    asyncio.run(scenario())
    return asked


@pytest.mark.parametrize("name", FACTORIES)
def test_every_contestant_draws_what_plain_diffusers_draws(
    name: str, tiny: BaseModelEntry, bodies: list[bytes], tmp_path: Path
) -> None:
    requests = to_compare([KIND, Kind("wide", 96, 64, 2)])
    plain = drawn_plainly(tiny, CPU, tmp_path, bodies, requests)
    with running(name, tiny, bodies) as contestant:
        assert asyncio.run(assert_equal({name: contestant}, requests, plain)) >= 0.999
        wrong = [np.zeros_like(picture) for picture in plain]
        with pytest.raises(AssertionError, match="another picture"):
            asyncio.run(assert_equal({name: contestant}, requests, wrong))


def test_adapters_that_change_nothing_are_not_taken_for_equality(
    tiny: BaseModelEntry, bodies: list[bytes], tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match="change nothing"):
        drawn_plainly(tiny, CPU, tmp_path, [bodies[0]] * 3, to_compare([KIND]))


@pytest.mark.parametrize(("name", "forwards"), [(RELOADING, 5 * 3), (SET_ADAPTERS, 5 * 3), (GROUPED, 2 * 3)])
def test_only_the_grouped_engine_shares_forward_passes_among_requests(
    name: str, forwards: int, tiny: BaseModelEntry, bodies: list[bytes]
) -> None:
    with running(name, tiny, bodies) as contestant:
        asked = ask_at_once(contestant, [0, 1, 0, 0, 1])
        counted = asyncio.run(contestant.counted())
    assert all(one.finished_s is not None for one in asked)
    # The request before them took twenty, without an adapter.
    assert (counted.forwards - 20, counted.images - 20, counted.adapters) == (forwards, 5 * 3, forwards)


def test_who_leaves_frees_the_engine_within_a_step(tiny: BaseModelEntry, bodies: list[bytes]) -> None:
    engine = FACTORIES[GROUPED](tiny, torch.float32)

    async def scenario() -> None:
        async with aclosing(engine.generate(quick_request(1, steps=150), ())) as results:
            await anext(results)
        async with asyncio.timeout(60):
            async for _ in engine.generate(quick_request(2, steps=1), ()):
                pass

    asyncio.run(scenario())
    engine.close()
    assert engine.counters.forwards < 20


def wanted(adapter: str, steps: int = 4) -> Wanted:
    worn = AppliedAdapter(AdapterVersionName("default", adapter, 1), adapter, 1.0, HostAdapter({}, 0))
    return Wanted(Caller(quick_request(1, steps=steps), (worn,), lambda result: None), ImageTask(0, 0, 1))


@pytest.mark.parametrize(
    ("together", "most", "places"), [(by_adapters, 16, [0, 2, 4]), (by_adapters, 2, [0, 2]), (by_caller, 16, [0])]
)
def test_the_one_that_waited_longest_goes_first_with_all_that_may_join_it(
    together: Callable[[Wanted], object], most: int, places: list[int]
) -> None:
    waiting = [wanted("a"), wanted("b"), wanted("a"), wanted("a", steps=5), wanted("a")]
    assert next_batch(waiting, together, most) == [waiting[place] for place in places]  # type: ignore[arg-type]
