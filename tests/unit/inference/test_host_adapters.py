"""Host memory in front of the disk: loaded once for all, bounded, pins stay, bad files are not fetched again."""

import gc
import hashlib
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from base_models.adapters.adapter_file import AdapterInvalid
from inference_service.adapter_cache import AdapterCache
from inference_service.engine import HostAdapter
from inference_service.host_adapters import HostAdapters, HostKey
from service_kit.errors import DataLost, TryLater
from service_kit.store import StoreUnavailable
from tests.counting_store import CountingStore
from tests.unit.inference.fake_serving import Clock

PATIENCE_S = 30.0


class Memory:
    """Host memory of 100 bytes; an adapter's bytes are those of its file."""

    def __init__(self, folder: Path) -> None:
        self.store, self.clock = CountingStore(), Clock()
        # No disk, so that every load is a call to the store.
        self.host = HostAdapters(AdapterCache(self.store, folder, max_bytes=0), 100, self.clock)
        self.parsed = 0

    def stored(self, letter: str, size_bytes: int = 40) -> HostKey:
        body = letter.encode() * size_bytes
        self.store.put(letter, body)
        return HostKey("toon-64", hashlib.sha256(body).hexdigest())

    def parse(self, body: bytes) -> HostAdapter:
        self.parsed += 1
        if body.startswith(b"x"):
            raise AdapterInvalid("a fake reason")
        return HostAdapter({}, len(body))

    def begin(self, key: HostKey, letter: str) -> "Future[HostAdapter]":
        return self.host.load(key, letter, self.parse)

    def load(self, key: HostKey, letter: str) -> HostAdapter:
        return self.begin(key, letter).result(PATIENCE_S)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    memory = Memory(tmp_path)
    yield memory
    memory.host.close()


def test_ten_who_want_a_missing_adapter_have_it_fetched_and_parsed_once(memory: Memory) -> None:
    key, gate = memory.stored("a"), threading.Event()
    memory.store.held["a"] = gate
    waiting = [memory.begin(key, "a") for _ in range(10)]
    # One who leaves takes nothing from the others.
    assert not waiting[0].cancel()
    gate.set()
    assert len({id(future.result(PATIENCE_S)) for future in waiting}) == 1
    assert memory.host.find(key) is waiting[0].result()
    assert memory.store.calls == [("get", "a")]
    assert memory.parsed == 1


def test_a_store_that_is_away_fails_all_ten_and_is_not_remembered(memory: Memory) -> None:
    key, gate = memory.stored("a"), threading.Event()
    memory.store.held["a"] = gate
    waiting = [memory.begin(key, "a") for _ in range(10)]
    memory.store.away = True
    gate.set()
    assert all(isinstance(future.exception(PATIENCE_S), StoreUnavailable) for future in waiting)
    assert memory.store.calls == [("get", "a")]
    memory.store.away = False
    assert memory.load(key, "a").size_bytes == 40


@pytest.mark.parametrize(("letter", "kind"), [("x", AdapterInvalid), ("gone", DataLost), ("torn", DataLost)])
def test_a_bad_file_is_refused_for_a_minute_without_being_fetched(
    memory: Memory, letter: str, kind: type[Exception]
) -> None:
    key = memory.stored(letter)
    if letter == "gone":
        memory.store.delete(letter)
    elif letter == "torn":
        memory.store.put(letter, b"tor")
    errors = [memory.begin(key, letter).exception(PATIENCE_S)]
    memory.clock.now_s = 59.0
    errors += [memory.begin(key, letter).exception(PATIENCE_S) for _ in range(10)]
    assert {type(error) for error in errors} == {kind}
    assert len({str(error) for error in errors}) == 1
    assert memory.store.calls == [("get", letter)]
    memory.clock.now_s = 60.0
    memory.stored(letter)
    mended = memory.begin(key, letter).exception(PATIENCE_S)
    assert (mended is None) == (letter != "x")
    assert len(memory.store.calls) == 2


def test_the_longest_unused_make_room(memory: Memory) -> None:
    a, b, c = (memory.stored(letter) for letter in "abc")
    memory.load(a, "a")
    memory.load(b, "b")
    memory.host.find(a)
    memory.load(c, "c")
    assert [memory.host.holds(key) for key in (a, b, c)] == [True, False, True]


def test_who_uses_an_adapter_keeps_it_and_it_is_not_loaded_again(memory: Memory) -> None:
    a, b, c = (memory.stored(letter) for letter in "abc")
    used = memory.load(a, "a")
    memory.load(b, "b")
    memory.load(c, "c")
    assert not memory.host.holds(a)
    assert memory.host.find(a) is used
    assert memory.host.holds(a)
    memory.load(b, "b")
    memory.load(c, "c")
    del used
    # So that no thread has it any more.
    memory.host.close()
    gc.collect()
    assert memory.host.find(a) is None


def test_what_does_not_fit_is_given_and_not_held(memory: Memory) -> None:
    small, large = memory.stored("a"), memory.stored("b", 101)
    memory.load(small, "a")
    assert memory.load(large, "b").size_bytes == 101
    assert memory.host.holds(small)
    assert not memory.host.holds(large)


def test_pins_stay_and_leave_room_for_others(memory: Memory) -> None:
    a, b, c = (memory.stored(letter) for letter in "abc")
    for _ in range(2):
        memory.host.pin(a, memory.load(a, "a"))
    with pytest.raises(TryLater, match=r"40 bytes of adapters are pinned in host memory; 40 more would exceed .* 50"):
        memory.host.pin(b, memory.load(b, "b"))
    for _ in range(3):
        memory.load(b, "b")
        memory.load(c, "c")
        assert [memory.host.holds(key) for key in (a, b, c)] == [True, False, True]
    memory.host.unpin(a)
    memory.host.pin(c, memory.load(c, "c"))
    memory.load(b, "b")
    assert [memory.host.holds(key) for key in (a, b, c)] == [False, True, True]
    memory.host.drop(c)
    assert not memory.host.is_pinned(c)
    memory.host.pin(b, memory.load(b, "b"))


def test_threads_that_load_and_evict_at_once_keep_the_bound(memory: Memory) -> None:
    keys = {letter: memory.stored(letter) for letter in "abcdefgh"}

    def churn() -> None:
        for letter, key in [*keys.items()] * 50:
            assert (memory.host.find(key) or memory.load(key, letter)).size_bytes == 40

    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sum(memory.host.holds(key) for key in keys.values()) == 2


class Tensors:
    """What a reader has of a file when it finds that the file is bad."""


@pytest.mark.parametrize("error", [AdapterInvalid, DataLost])
def test_nothing_of_a_file_that_proved_bad_stays_in_memory(memory: Memory, error: type[Exception]) -> None:
    left: list[weakref.ref[Tensors]] = []

    def parse(body: bytes) -> HostAdapter:
        tensors = Tensors()
        left.append(weakref.ref(tensors))
        raise error("a fake reason")

    key = memory.stored("a")
    gc.disable()
    try:
        refused = memory.host.load(key, "a", parse)
        assert isinstance(refused.exception(PATIENCE_S), error)
        del refused
        give_up_s = time.monotonic() + PATIENCE_S
        # Not by the collector, which counts objects and not bytes.
        while left[0]() is not None:
            assert time.monotonic() < give_up_s
    finally:
        gc.enable()
