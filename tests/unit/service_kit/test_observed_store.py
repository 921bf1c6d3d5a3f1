"""A watched store answers as the store behind it does, and every call is noted with what came of it."""

from collections.abc import Callable

import pytest

from service_kit.call_context import arrived, beside, span
from service_kit.memory_store import MemoryStore
from service_kit.observed_store import OUTCOMES, ObservedStore
from service_kit.store import ObjectChanged, ObjectExists, ObjectMissing, StoreError, StoreUnavailable
from tests.counting_store import CountingStore
from tests.kept_spans import KeptSpans

Noted = list[tuple[str, str]]


@pytest.fixture
def noted() -> Noted:
    return []


def watched(noted: Noted, behind: object = None) -> ObservedStore:
    return ObservedStore(
        behind or MemoryStore(),  # type: ignore[arg-type]
        lambda operation, outcome, seconds: noted.append((operation, outcome)),
    )


def test_every_call_is_passed_on_and_noted(noted: Noted) -> None:
    store = watched(noted)
    etag = store.create("a/b", b"one")
    assert store.replace("a/b", b"two", etag) != etag
    store.put("a/c/d", b"three")
    assert store.get("a/b").body == b"two"
    assert store.get_range("a/b", 1, 1) == b"w"
    assert list(store.keys("a/")) == ["a/b", "a/c/d"]
    assert list(store.folders("a/", after="a/a")) == ["a/c/"]
    store.delete("a/b")
    operations = ["create", "replace", "put", "get", "get_range", "keys", "folders", "delete"]
    assert noted == [(operation, "ok") for operation in operations]


FAILURES: dict[type[StoreError], Callable[[ObservedStore], object]] = {
    ObjectMissing: lambda store: store.get("nothing"),
    ObjectExists: lambda store: store.create("there", b"other"),
    ObjectChanged: lambda store: store.replace("there", b"other", "etag"),
}


@pytest.mark.parametrize("error", FAILURES)
def test_what_a_store_refuses_is_raised_and_noted_by_its_name(noted: Noted, error: type[StoreError]) -> None:
    store = watched(noted)
    store.put("there", b"")
    with pytest.raises(error):
        FAILURES[error](store)
    assert noted[-1][1] == OUTCOMES[error]


def test_a_listing_that_fails_or_is_left_early_is_noted_once(noted: Noted) -> None:
    behind = CountingStore()
    store = watched(noted, behind)
    for key in ("a", "b", "c"):
        store.put(key, b"")
    noted.clear()
    listing = store.keys("")
    assert next(listing) == "a"
    assert noted == []
    listing.close()  # type: ignore[attr-defined]
    behind.away = True
    with pytest.raises(StoreUnavailable):
        list(store.keys(""))
    assert noted == [("keys", "ok"), ("keys", "unavailable")]


def test_spans_lie_below_what_is_going_on_and_there_are_none_where_nothing_is(noted: Noted) -> None:
    spans, store = KeptSpans(), watched(noted)
    store.put("outside", b"")
    with arrived({}, spans.traces.tracer, {}), span("work"):
        store.put("inside", b"")
        list(store.keys(""))
        beside(lambda: store.put("heartbeat", b""))()
        with pytest.raises(ObjectMissing):
            store.get("nothing")
    (work,) = spans.named("work")
    assert spans.below(work) == ["store put", "store keys", "store get"]
    assert [span.attributes for span in spans.named("store put")] == [{"key": "inside"}]
    assert spans.named("store get")[0].status.description == "ObjectMissing"
    assert len(spans.ended) == 4
