"""200 repetitions of every bad input to the two real services: they serve on, and hold no more than before.

Each answer is held against the table, so that what is repeated is what its name says.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from personae.v1 import inference_pb2 as pb
from tests.bad_inputs.case import check, refusal
from tests.bad_inputs.table import CASES
from tests.bad_inputs.world import CALL_S, World, good_generation, running_world
from tests.faults.footprint import assert_no_larger, footprint
from tests.real_store import RealStore

pytestmark = [pytest.mark.faults, pytest.mark.slow]

WARM_UP, WARM_UP_CALLERS = 3, 8
REPETITIONS = max(case.repeats for case in CASES)
# What is repeated less often: it takes seconds a time, or is larger than all the others together.
RARE = {"2: more pictures than the limit", "30: an import of a file with a header of 90 MB"}
# Pools are bounded, that which fetches adapters by so many, and get another thread when calls meet. Few enough
# that a thread which stays behind at any one kind of call would be seen.
POOLED_THREADS = 16
MEASURED_S = 1_800
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def world(real_store: RealStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(real_store, tmp_path_factory.mktemp("world")) as world:
        yield world


def _left(call: Any) -> None:
    """Leave a stream after its first message."""
    next(call)
    call.cancel()
    list(call)


def _leave_early(world: World) -> None:
    """Calls that end before they are answered: no row of the table, since what ends them is their caller's clock."""
    for timeout_s in (0.001, 0.05):
        found = refusal(lambda late=timeout_s: world.inference("Generate", good_generation(steps=100), timeout_s=late))
        assert found.code is Code.DEADLINE_EXCEEDED
    found = refusal(lambda: _left(world.inference("Generate", good_generation(steps=100))))
    assert found.code is Code.CANCELLED


def _warm_up(world: World) -> None:
    """All of the table once; side by side, some calls are turned away by what the others take."""
    for case in CASES:
        if case.repeats == REPETITIONS:
            refusal(lambda send=case.send: send(world))


def test_no_leak_of_a_thread_a_call_could_hide_in_a_pool() -> None:
    assert REPETITIONS > 10 * POOLED_THREADS


def test_only_what_is_slow_or_huge_is_repeated_less_often() -> None:
    assert {str(case) for case in CASES if case.repeats < REPETITIONS} == RARE


@pytest.mark.timeout(MEASURED_S)
def test_bad_inputs_leave_both_services_as_they_were(world: World) -> None:
    for case in CASES:
        check(case, world)
    # Side by side, so that the pools, which are bounded and grow when nobody in them is idle, have grown before.
    with ThreadPoolExecutor(WARM_UP_CALLERS) as callers:
        for warm in [callers.submit(_warm_up, world) for _ in range(WARM_UP * WARM_UP_CALLERS)]:
            warm.result()
    _leave_early(world)
    world.goes_on()
    services = {name: service.process.pid for name, service in world.processes.items()}
    before = {name: footprint(process) for name, process in services.items()}
    for repetition in range(REPETITIONS):
        for case in CASES:
            if repetition < case.repeats:
                check(case, world)
        _leave_early(world)
    world.goes_on()
    for name, process in services.items():
        print(name, before[name], assert_no_larger(before[name], process, more_threads=POOLED_THREADS))
    info = world.inference("GetServingInfo", pb.GetServingInfoRequest(), timeout_s=CALL_S)
    assert (info.cost_waiting, info.requests_open) == (0, 0)


def test_a_leak_of_each_kind_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.footprint._SETTLES_WITHIN_S", 0.5)
    process, over = os.getpid(), threading.Event()
    with ExitStack() as held:
        before = footprint(process)
        held.enter_context(Path("/dev/null").open())
        with pytest.raises(AssertionError, match="before"):
            assert_no_larger(before, process)
        before = footprint(process)
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        held.callback(child.communicate)
        with pytest.raises(AssertionError, match="before"):
            # Its pipe is a descriptor.
            assert_no_larger(replace(before, descriptors=before.descriptors + 1), process)
        before = footprint(process)
        leaked = threading.Thread(target=over.wait)
        held.callback(leaked.join)
        held.callback(over.set)
        leaked.start()
        with pytest.raises(AssertionError, match="before"):
            assert_no_larger(before, process)
        before = footprint(process)
        leaked_bytes = bytearray(b"x") * (before.rss_kb * 1024 // 5)
        with pytest.raises(AssertionError, match="before"):
            assert_no_larger(before, process)
        assert leaked_bytes
