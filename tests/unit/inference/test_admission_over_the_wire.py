"""InferenceService over a real port with a fake engine: who is turned away, how early, and what that leaves behind."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from inference_service.admission import Demand, Limits
from personae.v1 import inference_pb2 as pb
from service_kit.memory_store import MemoryStore
from service_kit.names import AdapterVersionName
from service_kit.store import StoredObject
from tests.bucket_adapters import publish
from tests.unit.inference.fake_serving import PATIENCE_S, FakeServing, ask, measure_speed, serve

V1 = AdapterVersionName("default", "hero", 1)
# Of the size and the two steps that `ask` asks for.
IMAGE_COST = 6
NARROW = Limits(cost=4 * IMAGE_COST, requests=64, project_share=1.0)
SHARED = Limits(cost=8 * IMAGE_COST, requests=64, project_share=0.5)
# The fake clock stands still: what is said to take seconds does not.
LONG_S = 0.8 * PATIENCE_S


@asynccontextmanager
async def _waiting(serving: FakeServing, *seeds: int, **fields: Any) -> AsyncIterator[Any]:
    """The call of a request that was accepted and waits until the block is left; then it is carried out."""
    serving.engine.gate.clear()
    call = serving.stub.Generate(ask(*seeds, **fields), timeout=PATIENCE_S)
    assert (await call.read()).HasField("accepted")
    yield call
    serving.engine.gate.set()
    while (message := await call.read()) is not grpc.aio.EOF:
        last = message
    assert last.HasField("done")


async def _refused(
    serving: FakeServing, request: pb.GenerateRequest, timeout_s: float = LONG_S
) -> tuple[grpc.StatusCode, str, float | None]:
    """Status, reason and time to try again of a call that must fail before it is accepted."""
    call = serving.stub.Generate(request, timeout=timeout_s)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    status = rpc_status.from_call(caught.value)
    assert status is not None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    told = any(detail.Unpack(retry) for detail in status.details)
    retry_ms = retry.retry_delay.ToMilliseconds() if told else None
    pushback = dict(caught.value.trailing_metadata()).get("grpc-retry-pushback-ms")
    assert pushback == (None if retry_ms is None else str(retry_ms))
    return caught.value.code(), info.reason, None if retry_ms is None else retry_ms / 1000


def test_a_full_queue_refuses_with_a_time_to_try_again(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        measure_speed(serving.studio.admission, serving.clock, passes_per_s=2.0)
        async with _waiting(serving, 1, 2, 3):
            refusal = await _refused(serving, ask(4, 5))
            # One image too many, of six passes.
            assert refusal == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", 3.0)
        assert len(await serving.generate(ask(4, 5))) == 5

    serve(tmp_path, scenario, limits=NARROW)


def test_a_project_that_has_its_share_is_refused_while_others_are_served(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(serving.store, V1)
        async with _waiting(serving, 1, 2, 3, 4):
            adapters = [pb.AdapterWeight(adapter=str(V1))]
            for same in (ask(5), ask(5, adapters=adapters), ask(5, project="default")):
                code, reason, retry_s = await _refused(serving, same)
                assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "PROJECT_QUEUE_FULL")
                assert retry_s
            async with _waiting(serving, 6, 7, 8, 9, project="other", adapters=adapters):
                assert (await _refused(serving, ask(5, project="third")))[1] == "QUEUE_FULL"

    serve(tmp_path, scenario, limits=SHARED)


def test_a_project_that_has_its_share_is_told_which_quota_that_is(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        for project, named in (("mine", ["projects/mine"]), ("other", [])):
            async with _waiting(serving, 1, 2, 3, 4, project="mine"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await serving.generate(ask(*range(4 if project == "mine" else 8), project=project))
            status, quota = rpc_status.from_call(caught.value), error_details_pb2.QuotaFailure()
            subjects = [one.subject for detail in status.details if detail.Unpack(quota) for one in quota.violations]
            assert subjects == named

    serve(tmp_path, scenario, limits=SHARED)


def test_the_effective_request_says_whose_it_is(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        name = AdapterVersionName("theirs", "hero", 1)
        publish(serving.store, name)
        for fields, project in (
            ({}, "default"),
            ({"adapters": [pb.AdapterWeight(adapter=str(name))]}, "theirs"),
            ({"adapters": [pb.AdapterWeight(adapter=str(name))], "project": "mine"}, "mine"),
        ):
            (accepted, *_) = await serving.generate(ask(1, **fields))
            assert accepted.accepted.effective_request.project == project

    serve(tmp_path, scenario)


def test_a_refusal_reads_no_adapter_and_counts_no_token(tmp_path: Path) -> None:
    class CountingStore(MemoryStore):
        reads = 0

        def get(self, key: str) -> StoredObject:
            self.reads += 1
            return super().get(key)

    store = CountingStore()
    adapters = [pb.AdapterWeight(adapter=str(V1))]
    too_long = [pb.GenerateRequest.Prompt(text="word " * 39)]

    async def scenario(serving: FakeServing) -> None:
        async with _waiting(serving, 1, 2, 3, 4):
            assert (await _refused(serving, ask(5, adapters=adapters)))[1] == "QUEUE_FULL"
            assert store.reads == 0
            # With room, the check would say INVALID_ARGUMENT.
            assert (await _refused(serving, ask(prompts=too_long)))[1] == "QUEUE_FULL"
        assert (await _refused(serving, ask(prompts=too_long)))[0] == grpc.StatusCode.INVALID_ARGUMENT

    serve(tmp_path, scenario, limits=NARROW, bucket=store)


def test_images_that_never_fit_are_invalid_however_full_the_queue_is(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        async with _waiting(serving, 1, 2, 3, 4), _waiting(serving, 1, 2, 3, 4, project="other"):
            assert serving.studio.admission.cost_waiting == SHARED.cost
            code, reason, retry_s = await _refused(serving, ask(*range(5)))
            assert (code, reason, retry_s) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", None)

    serve(tmp_path, scenario, limits=SHARED)


def test_a_deadline_shorter_than_the_queue_is_refused_at_once(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        admission = serving.studio.admission
        measure_speed(admission, serving.clock, passes_per_s=2.0)
        with admission.admit(Demand("default", 1, IMAGE_COST), None):
            # Three seconds for those before it, three for itself. The reason shows that the server answered in time.
            too_short = (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT")
            assert await _refused(serving, ask(1), timeout_s=2.5) == (*too_short, None)
            code, reason, retry_s = await _refused(serving, ask(1), timeout_s=4.0)
            assert (code, reason) == too_short
            assert 1.9 <= (retry_s or 0.0) <= 6.0
            assert not serving.engine.begun.is_set()
            assert len(await serving.generate(ask(1, project="other"))) == 5

    serve(tmp_path, scenario)


@pytest.mark.parametrize("timeout_s", [0.001, 0.0, -1.0])
def test_a_deadline_that_is_nearly_or_already_past_costs_nothing(tmp_path: Path, timeout_s: float) -> None:
    async def scenario(serving: FakeServing) -> None:
        measure_speed(serving.studio.admission, serving.clock, passes_per_s=2.0)
        for _ in range(20):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await serving.stub.Generate(ask(1), timeout=timeout_s).read()
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await _nothing_is_held(serving)
        assert not serving.engine.begun.is_set()

    serve(tmp_path, scenario)


def test_a_deadline_that_passes_between_two_images_frees_the_rest(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        serving.engine.gate.clear()
        serving.engine.ungated = 1
        call = serving.stub.Generate(ask(1, 2, 3), timeout=1.0)
        for kind in ("accepted", "progress", "image"):
            assert (await call.read()).WhichOneof("kind") == kind
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await serving.engine.freed.wait()
        await _nothing_is_held(serving)
        assert [task.seed for task in serving.engine.computed] == [1]

    serve(tmp_path, scenario)


def test_two_hundred_refusals_leave_nothing_behind(tmp_path: Path) -> None:
    held_places = Limits(cost=4 * IMAGE_COST, requests=2, project_share=1.0)

    def footprint() -> tuple[int, int, int]:
        return threading.active_count(), len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))

    async def scenario(serving: FakeServing) -> None:
        # A pool starts a thread where none is idle yet, up to its bound; so that they can be counted it has one.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        measure_speed(serving.studio.admission, serving.clock, passes_per_s=4.0)
        refused = {
            "DEADLINE_TOO_SHORT": (ask(3), 2.0),
            "INVALID_REQUEST": (ask(*range(5)), LONG_S),
            "QUEUE_FULL": (ask(4, 5), LONG_S),
        }
        async with _waiting(serving, 1, 2, 3):
            # The first refusals start what stays.
            for times in (10, 200):
                before = footprint()
                for index in range(times):
                    reason, (request, timeout_s) = list(refused.items())[index % len(refused)]
                    assert (await _refused(serving, request, timeout_s))[1] == reason
                if times == 200:
                    # A call's task ends a little after its status has come.
                    async with asyncio.timeout(PATIENCE_S):
                        while any(now > was for now, was in zip(footprint(), before, strict=True)):
                            await asyncio.sleep(0)
            assert serving.studio.admission.cost_waiting == 3 * IMAGE_COST
            async with _waiting(serving, 4):
                assert (await _refused(serving, ask(6)))[1] == "QUEUE_FULL"
                assert serving.studio.admission.requests_open == 2
        await _nothing_is_held(serving)
        await serving.generate(ask(9))

    serve(tmp_path, scenario, limits=held_places)


async def _nothing_is_held(serving: FakeServing) -> None:
    """Wait until what calls held is free: their ends are seen here before the server has done with them."""
    admission = serving.studio.admission
    async with asyncio.timeout(PATIENCE_S):
        while (admission.requests_open, admission.cost_waiting, admission.images_waiting) != (0, 0, 0):
            await serving.stub.GetServingInfo(pb.GetServingInfoRequest(), timeout=PATIENCE_S)
