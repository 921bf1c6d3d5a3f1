"""From the bucket to the first step: what a hit costs, what a miss costs, and whom a slow adapter delays."""

import asyncio
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from inference_service.generation import MAX_ADAPTERS
from personae.v1 import inference_pb2 as pb
from service_kit import schema
from service_kit.names import AdapterVersionName
from tests.bucket_adapters import publish
from tests.counting_store import CountingStore
from tests.unit.inference.fake_serving import PATIENCE_S, FakeServing, ask, ask_with_adapter, rest_of, serve

HERO = AdapterVersionName("default", "hero", 1)
VILLAIN = AdapterVersionName("default", "villain", 1)
LOADING_THREADS = 16


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


def hold_back(store: CountingStore, name: AdapterVersionName, body: bytes) -> threading.Event:
    """Publish an adapter whose file does not come before the event is set."""
    blob = schema.adapter_blob(name, publish(store, name, body))
    return store.held.setdefault(blob, threading.Event())


async def until(holds: Callable[[], bool]) -> None:
    """Wait for another thread."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.01)


def test_a_hit_asks_neither_the_store_nor_the_disk(tmp_path: Path, store: CountingStore) -> None:
    async def scenario(serving: FakeServing) -> None:
        digest = publish(store, HERO)
        request = ask_with_adapter(HERO.adapter_name)
        await serving.generate(request)
        await until((tmp_path / digest).exists)
        shutil.rmtree(tmp_path)
        del store.calls[:]
        store.away = True
        for _ in range(3):
            assert (await serving.generate(request))[-1].HasField("done")
        assert store.calls == []

    serve(tmp_path, scenario, bucket=store)


def test_a_hit_does_not_wait_while_its_name_is_looked_up_again(tmp_path: Path, store: CountingStore) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(store, HERO)
        request = ask_with_adapter(HERO.adapter_name)
        await serving.generate(request)
        gate = store.held[schema.adapter_versions_prefix(HERO.adapter_name)] = threading.Event()
        serving.clock.now_s += 2.5
        assert (await serving.generate(request))[-1].HasField("done")
        assert not gate.is_set()
        gate.set()

    serve(tmp_path, scenario, bucket=store)


def test_a_file_on_the_disk_is_not_fetched_after_a_restart(tmp_path: Path, store: CountingStore) -> None:
    digest = publish(store, HERO)

    async def first(serving: FakeServing) -> None:
        await serving.generate(ask_with_adapter(HERO))

    async def second(serving: FakeServing) -> None:
        del store.calls[:]
        await serving.generate(ask_with_adapter(HERO))
        assert store.calls == [("get", schema.adapter_manifest(HERO))]

    # The end of the first waits for its write to the disk.
    serve(tmp_path, first, bucket=store)
    assert hashlib.sha256((tmp_path / digest).read_bytes()).hexdigest() == digest
    serve(tmp_path, second, bucket=store)


def test_a_miss_takes_100_ms_more_than_a_hit_and_the_store_at_most(tmp_path: Path, store: CountingStore) -> None:
    tries, latency_s, reads = 5, 0.05, 3

    async def scenario(serving: FakeServing) -> None:
        async def until_first_step_s(name: AdapterVersionName) -> float:
            called_s = time.perf_counter()
            call = serving.stub.Generate(ask_with_adapter(name.adapter_name), timeout=PATIENCE_S)
            async for message in call:
                if message.HasField("progress"):
                    break
            took_s = time.perf_counter() - called_s
            call.cancel()
            return took_s

        names = [AdapterVersionName("default", f"hero-{number}", 1) for number in range(tries)]
        for name in names:
            publish(store, name, os.urandom(4_000_000))
        store.latency_s = latency_s
        misses_s, hits_s = [], []
        for name in names:
            del store.calls[:]
            misses_s.append(await until_first_step_s(name))
            assert len(store.calls) == reads
            hits_s.append(await until_first_step_s(name))
        yardstick_s = time.perf_counter()
        for _ in range(reads):
            store.get(schema.adapter_manifest(names[0]))
        yardstick_s = time.perf_counter() - yardstick_s
        # The best of several, because the machine does other things too.
        assert reads * latency_s < min(misses_s) < yardstick_s + min(hits_s) + 0.1

    serve(tmp_path, scenario, bucket=store, host_bytes=10**9)


def test_slow_adapters_delay_nobody_else(tmp_path: Path, store: CountingStore) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(store, HERO)
        publish(store, VILLAIN, b"another adapter")
        await serving.generate(ask_with_adapter(HERO))
        # As many as may be on their way, less one.
        slow = [AdapterVersionName("default", f"slow-{number}", 1) for number in range(LOADING_THREADS - 1)]
        gates = [hold_back(store, name, str(name).encode()) for name in slow]
        waiting = [asyncio.ensure_future(serving.generate(ask_with_adapter(name))) for name in slow * 3]
        await until(lambda: len([key for operation, key in store.calls if "blobs" in key]) == 1 + len(slow))
        for request in (ask(1), ask_with_adapter(HERO), ask_with_adapter(VILLAIN)):
            assert (await serving.generate(request))[-1].HasField("done")
        for gate in gates:
            gate.set()
        assert all(messages[-1].HasField("done") for messages in await asyncio.gather(*waiting))
        # Three wanted each of them; it was fetched once.
        assert len([key for operation, key in store.calls if "blobs" in key]) == 2 + len(slow)

    serve(tmp_path, scenario, bucket=store)


def test_the_adapters_of_a_request_are_fetched_at_the_same_time(tmp_path: Path, store: CountingStore) -> None:
    async def scenario(serving: FakeServing) -> None:
        names = [AdapterVersionName("default", f"hero-{number}", 1) for number in range(MAX_ADAPTERS)]
        gates = [hold_back(store, name, str(name).encode()) for name in names]
        request = ask(1, adapters=[pb.AdapterWeight(adapter=str(name)) for name in names])
        waiting = asyncio.ensure_future(serving.generate(request))
        await until(lambda: len([key for _, key in store.calls if "blobs" in key]) == MAX_ADAPTERS)
        for gate in gates:
            gate.set()
        assert (await waiting)[-1].HasField("done")

    serve(tmp_path, scenario, bucket=store)


def test_ten_thousand_adapters_change_neither_the_start_nor_a_request(tmp_path: Path, store: CountingStore) -> None:
    async def scenario(serving: FakeServing) -> None:
        assert store.calls == []
        await serving.generate(ask_with_adapter(HERO.adapter_name))
        assert (len(store.calls), store.listed) == (3, 1)

    publish(store, HERO)
    for number in range(10_000):
        store.put(schema.adapter_manifest(AdapterVersionName("default", f"other-{number}", 1)), b"{}")
    serve(tmp_path, scenario, bucket=store)


def test_a_damaged_file_is_not_fetched_again_for_a_minute(tmp_path: Path, store: CountingStore) -> None:
    async def scenario(serving: FakeServing) -> None:
        blob = schema.adapter_blob(HERO, publish(store, HERO))
        store.put(blob, b"an ada")
        for moment_s in (0.0, 30.0, 59.0, 60.0):
            serving.clock.now_s = moment_s
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await serving.generate(ask_with_adapter(HERO))
            assert caught.value.code() == grpc.StatusCode.DATA_LOSS
            assert store.calls.count(("get", blob)) == (1 if moment_s < 60 else 2)
        store.put(blob, b"an adapter")
        serving.clock.now_s = 120.0
        assert (await serving.generate(ask_with_adapter(HERO)))[-1].HasField("done")

    serve(tmp_path, scenario, bucket=store)


def test_a_deleted_adapter_is_gone_within_five_seconds_and_its_file_too(tmp_path: Path, store: CountingStore) -> None:
    async def scenario(serving: FakeServing) -> None:
        digest = publish(store, HERO)
        await serving.generate(ask_with_adapter(HERO))
        await until((tmp_path / digest).exists)
        store.delete(schema.adapter_manifest(HERO))
        serving.clock.now_s += 5
        for name in (HERO, HERO.adapter_name):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await serving.generate(ask_with_adapter(name))
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        await until(lambda: not (tmp_path / digest).exists())

    serve(tmp_path, scenario, bucket=store)


def test_an_adapter_that_is_deleted_ends_its_requests_and_no_others(tmp_path: Path, store: CountingStore) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(store, HERO)
        publish(store, VILLAIN, b"another adapter")
        serving.engine.gate.clear()
        doomed, other = (serving.stub.Generate(ask_with_adapter(name), timeout=PATIENCE_S) for name in (HERO, VILLAIN))
        assert (await doomed.read()).HasField("accepted")
        assert (await other.read()).HasField("accepted")
        store.delete(schema.adapter_manifest(HERO))
        serving.clock.now_s += 2
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rest_of(doomed)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        assert "deleted" in (caught.value.details() or "")
        assert serving.engine.computed == []
        serving.engine.gate.set()
        assert (await rest_of(other))[-1].HasField("done")
        assert serving.studio.admission.cost_waiting == 0

    serve(tmp_path, scenario, bucket=store)
