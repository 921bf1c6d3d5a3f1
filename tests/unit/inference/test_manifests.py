"""What an adapter's name means now: never older than the bound, and nobody in steady use waits for the store."""

import threading
from collections.abc import Callable, Iterator

import pytest

from inference_service.manifests import Manifests
from service_kit import schema
from service_kit.errors import ResourceMissing
from service_kit.names import AdapterVersionName
from service_kit.store import StoreUnavailable
from tests.bucket_adapters import publish, reserve
from tests.counting_store import CountingStore
from tests.unit.inference.fake_serving import Clock

V1 = AdapterVersionName("default", "hero", 1)
V2 = AdapterVersionName("default", "hero", 2)
HERO = V1.adapter_name
PATIENCE_S = 30.0


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def manifests(store: CountingStore, clock: Clock) -> Iterator[Manifests]:
    manifests = Manifests(store, clock)
    yield manifests
    manifests.close()


def until(holds: Callable[[], bool]) -> None:
    """Wait for another thread."""
    waited = threading.Event()
    for _ in range(int(PATIENCE_S / 0.01)):
        if holds():
            return
        waited.wait(0.01)
    raise AssertionError("it never came true")


def test_a_name_in_steady_use_never_waits_for_the_store(
    manifests: Manifests, store: CountingStore, clock: Clock
) -> None:
    publish(store, V1)
    found = manifests.read(HERO).result(PATIENCE_S)
    gate = store.held[schema.adapter_versions_prefix(HERO)] = threading.Event()
    clock.now_s = 1.9
    assert manifests.known(HERO) is found
    assert len(store.calls) == 2
    # From 2 s on it is read again, once, while the old answer serves.
    clock.now_s = 2.0
    for _ in range(10):
        assert manifests.known(HERO) is found
    clock.now_s = 3.9
    assert manifests.known(HERO) is found
    gate.set()
    until(lambda: len(store.calls) == 4)
    manifests.read(HERO).result(PATIENCE_S)


def test_a_new_version_is_known_once_it_was_read_again(
    manifests: Manifests, store: CountingStore, clock: Clock
) -> None:
    publish(store, V1)
    manifests.read(HERO).result(PATIENCE_S)
    publish(store, V2)
    clock.now_s = 2.0

    def latest() -> AdapterVersionName | None:
        known = manifests.known(HERO)
        return known.name if known else None

    assert latest() == V1
    until(lambda: latest() == V2)


@pytest.mark.parametrize("name", [HERO, V1])
def test_an_answer_of_four_seconds_is_not_used(
    manifests: Manifests, store: CountingStore, clock: Clock, name: AdapterVersionName
) -> None:
    publish(store, V1)
    manifests.read(name).result(PATIENCE_S)
    store.delete(schema.adapter_manifest(V1))
    clock.now_s = 3.99
    assert manifests.known(name) is not None
    clock.now_s = 4.0
    assert manifests.known(name) is None
    with pytest.raises(ResourceMissing):
        manifests.read(name).result(PATIENCE_S)
    assert manifests.known(name) is None


def test_a_deletion_is_noticed_and_a_store_that_is_away_is_none(
    manifests: Manifests, store: CountingStore, clock: Clock
) -> None:
    publish(store, V1)
    manifests.read(HERO).result(PATIENCE_S)
    store.delete(schema.adapter_manifest(V1))
    clock.now_s, store.away = 2.0, True
    assert not manifests.is_deleted(V1)
    until(lambda: V1 not in manifests._reading)
    assert not manifests.is_deleted(V1)
    until(lambda: V1 not in manifests._reading)
    store.away = False
    until(lambda: manifests.is_deleted(V1))
    assert clock.now_s < 5.0


def test_what_fails_is_asked_again(manifests: Manifests, store: CountingStore) -> None:
    store.away = True
    with pytest.raises(StoreUnavailable):
        manifests.read(HERO).result(PATIENCE_S)
    store.away = False
    with pytest.raises(ResourceMissing):
        manifests.read(HERO).result(PATIENCE_S)
    publish(store, V1)
    assert manifests.read(HERO).result(PATIENCE_S).name == V1


def test_ten_thousand_adapters_cost_a_request_nothing(store: CountingStore, clock: Clock) -> None:
    def asked_of_the_store() -> tuple[int, int]:
        """Calls and entries listed, for the latest version and for one by its number."""
        del store.calls[:]
        store.listed = 0
        manifests = Manifests(store, clock)
        assert store.calls == []
        manifests.read(HERO).result(PATIENCE_S)
        clock.now_s += 10
        manifests.read(V1).result(PATIENCE_S)
        manifests.close()
        return len(store.calls), store.listed

    publish(store, V1)
    reserve(store, V2)
    alone = asked_of_the_store()
    assert alone == (4, 2)
    for number in range(10_000):
        store.put(schema.adapter_manifest(AdapterVersionName("default", f"other-{number}", 1)), b"{}")
    assert asked_of_the_store() == alone


def test_what_is_remembered_is_bounded(manifests: Manifests, store: CountingStore) -> None:
    names = [AdapterVersionName("default", f"hero-{number}", 1) for number in range(1_100)]
    for name in names:
        publish(store, name)
        manifests.read(name).result(PATIENCE_S)
    assert [manifests.known(name) is None for name in names] == [True] * 76 + [False] * 1_024
    # Who runs with one that was forgotten still learns of its end.
    store.delete(schema.adapter_manifest(names[0]))
    until(lambda: manifests.is_deleted(names[0]))
