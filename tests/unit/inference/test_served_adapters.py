"""PreloadAdapter and ListServedAdapters over a real port: where adapters are, and how they get nearer."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from personae.v1 import inference_pb2 as pb
from service_kit import schema
from service_kit.names import AdapterVersionName
from tests.bucket_adapters import publish, reserve
from tests.unit.inference.fake_serving import (
    BROKEN_FILE,
    EPOCH,
    PATIENCE_S,
    FakeServing,
    ask_with_adapter,
    rest_of,
    serve,
)

NAMES = [AdapterVersionName("default", f"hero-{number}", 1) for number in range(5)]
DISK, HOST, SLOT = (pb.ServedAdapter.RESIDENCY_DISK, pb.ServedAdapter.RESIDENCY_HOST, pb.ServedAdapter.RESIDENCY_SLOT)


async def preload(serving: FakeServing, name: object, pinned: bool = False) -> pb.ServedAdapter:
    request = pb.PreloadAdapterRequest(adapter=str(name), pinned=pinned)
    answer: pb.PreloadAdapterResponse = await serving.stub.PreloadAdapter(request, timeout=PATIENCE_S)
    return answer.adapter


async def listed(serving: FakeServing, **page: Any) -> pb.ListServedAdaptersResponse:
    answer: pb.ListServedAdaptersResponse = await serving.stub.ListServedAdapters(
        pb.ListServedAdaptersRequest(**page), timeout=PATIENCE_S
    )
    return answer


async def refused(serving: FakeServing, name: object, pinned: bool = False) -> tuple[grpc.StatusCode, str, str]:
    """Status, reason and text of a preload that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await preload(serving, name, pinned)
    status, info = rpc_status.from_call(caught.value), error_details_pb2.ErrorInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    return caught.value.code(), info.reason, status.message


def test_a_preloaded_adapter_is_in_memory_and_its_request_asks_for_no_file(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        digest = publish(serving.store, NAMES[0])
        serving.clock.now_s = 7.0
        found = await preload(serving, NAMES[0].adapter_name)
        assert found.adapter == str(NAMES[0])
        assert (found.residency, found.size_bytes, found.pinned) == (HOST, len(b"an adapter"), False)
        assert (found.last_use_time.ToDatetime(tzinfo=EPOCH.tzinfo) - EPOCH).total_seconds() == 7.0
        assert list((await listed(serving)).adapters) == [found]
        serving.store.delete(schema.adapter_blob(NAMES[0], digest))
        assert (await serving.generate(ask_with_adapter(NAMES[0])))[-1].HasField("done")

    serve(tmp_path, scenario)


def test_what_is_held_is_listed_where_it_is_the_most_recently_used_first(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        for name in NAMES:
            publish(serving.store, name, str(name).encode())
            await preload(serving, name)
        await serving.generate(ask_with_adapter(NAMES[1]))
        places = [(found.adapter, found.residency) for found in (await listed(serving)).adapters]
        # Two fit into memory; the others went on to the disk as they came.
        expected = [(NAMES[1], SLOT), (NAMES[4], HOST), (NAMES[3], DISK), (NAMES[2], DISK), (NAMES[0], DISK)]
        assert places == [(str(name), residency) for name, residency in expected]
        assert all(found.size_bytes == len(str(NAMES[0])) for found in (await listed(serving)).adapters)

    serve(tmp_path, scenario, host_bytes=2 * len(str(NAMES[0])))


def test_pages_hold_every_adapter_once(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        assert await listed(serving) == pb.ListServedAdaptersResponse()
        for name in NAMES:
            publish(serving.store, name)
            await preload(serving, name)
        found, token = [], ""
        for size in (2, 2, 1):
            page = await listed(serving, page_size=2, page_token=token)
            assert len(page.adapters) == size
            found += [adapter.adapter for adapter in page.adapters]
            token = page.next_page_token
            # What is used meanwhile moves to the front and does not come again.
            await preload(serving, NAMES[4])
        assert token == ""
        assert found == [str(name) for name in reversed(NAMES)]

    serve(tmp_path, scenario)


@pytest.mark.parametrize("token", ["../", "-1", "²", "9" * 30, "next"])
def test_everything_wrong_with_a_page_is_said_at_once(tmp_path: Path, token: str) -> None:
    async def scenario(serving: FakeServing) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await listed(serving, page_size=1001, page_token=token)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert all(field in (caught.value.details() or "") for field in ("page_size", "page_token"))

    serve(tmp_path, scenario)


def test_a_pin_holds_until_it_is_taken_back(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        for name in NAMES:
            publish(serving.store, name, str(name).encode())
        assert (await preload(serving, NAMES[0], pinned=True)).pinned
        assert (await preload(serving, NAMES[0], pinned=True)).pinned
        code, reason, text = await refused(serving, NAMES[1], pinned=True)
        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "PINS_FULL")
        assert "pinned" in text
        for name in NAMES[1:]:
            await preload(serving, name)
        (pinned,) = [found for found in (await listed(serving)).adapters if found.pinned]
        assert (pinned.adapter, pinned.residency) == (str(NAMES[0]), HOST)
        assert not (await preload(serving, NAMES[0])).pinned
        assert (await preload(serving, NAMES[1], pinned=True)).pinned

    serve(tmp_path, scenario, host_bytes=2 * len(str(NAMES[0])))


def test_an_adapter_that_memory_does_not_take_is_said_so(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(serving.store, NAMES[0])
        code, reason, _ = await refused(serving, NAMES[0])
        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "HOST_MEMORY_FULL")
        # Its requests are served all the same.
        assert (await serving.generate(ask_with_adapter(NAMES[0])))[-1].HasField("done")

    serve(tmp_path, scenario, host_bytes=5)


def test_what_cannot_be_preloaded_says_why(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        reserve(serving.store, NAMES[0])
        publish(serving.store, NAMES[1], base_model="other")
        publish(serving.store, NAMES[2], base_model_digest="e" * 64)
        publish(serving.store, NAMES[3], BROKEN_FILE)
        wanted = {
            "": (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
            "../x": (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
            "projects/default/adapters/nobody": (grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
            str(NAMES[0]): (grpc.StatusCode.FAILED_PRECONDITION, "ADAPTER_STILL_TRAINING"),
            str(NAMES[1]): (grpc.StatusCode.FAILED_PRECONDITION, "BASE_MODEL_MISMATCH"),
            str(NAMES[2]): (grpc.StatusCode.FAILED_PRECONDITION, "BASE_MODEL_MISMATCH"),
            str(NAMES[3]): (grpc.StatusCode.FAILED_PRECONDITION, "ADAPTER_INVALID"),
        }
        assert {name: (await refused(serving, name))[:2] for name in wanted} == wanted
        assert await listed(serving) == pb.ListServedAdaptersResponse()

    serve(tmp_path, scenario)


def test_a_deleted_adapter_is_neither_listed_nor_pinned(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        for name in NAMES[:2]:
            publish(serving.store, name, str(name).encode())
        await preload(serving, NAMES[0], pinned=True)
        serving.store.delete(schema.adapter_manifest(NAMES[0]))
        serving.clock.now_s += 5
        assert (await refused(serving, NAMES[0]))[0] == grpc.StatusCode.NOT_FOUND
        assert await listed(serving) == pb.ListServedAdaptersResponse()
        assert (await preload(serving, NAMES[1], pinned=True)).pinned

    serve(tmp_path, scenario, host_bytes=2 * len(str(NAMES[0])))


def test_preloading_does_not_hold_up_what_runs(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(serving.store, NAMES[0])
        serving.engine.gate.clear()
        running = serving.stub.Generate(ask_with_adapter(NAMES[0]), timeout=PATIENCE_S)
        assert (await running.read()).HasField("accepted")
        publish(serving.store, NAMES[1], b"another adapter")
        found = await asyncio.gather(*(preload(serving, NAMES[1]) for _ in range(10)))
        assert {adapter.residency for adapter in found} == {HOST}
        serving.engine.gate.set()
        assert (await rest_of(running))[-1].HasField("done")

    serve(tmp_path, scenario)
