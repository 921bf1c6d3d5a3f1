"""The traps of a store across a network: lost answers, lost races, silence, refusals."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from service_kit import minio_store
from service_kit.minio_store import MinioStore
from service_kit.store import ObjectChanged, ObjectExists, ObjectMissing, StoreForbidden, StoreUnavailable
from tests.faults.happenings import answer_lost, held, lost, lost_body, refused
from tests.faults.store_proxy import Action, Exchange, Rule, StoreProxy, store_proxy
from tests.real_store import RealStore, connect, free_ports

_REPORTED_WITHIN_S = 5.0


@pytest.fixture
def proxy(real_store: RealStore) -> Iterator[StoreProxy]:
    with store_proxy(real_store.endpoint) as running:
        yield running


@pytest.fixture
def store(proxy: StoreProxy) -> MinioStore:
    """Over the proxy."""
    return connect(proxy.endpoint)


def test_a_create_whose_answer_is_lost_reports_that_it_won(
    real_store: RealStore, proxy: StoreProxy, store: MinioStore, prefix: str
) -> None:
    with proxy.when(Rule("PUT", "", answer_lost)):
        etag = store.create(f"{prefix}a", b"ours")
    assert real_store.store.get(f"{prefix}a").body == b"ours"
    assert real_store.store.get(f"{prefix}a").etag == etag


def test_a_replace_whose_answer_is_lost_reports_that_it_won(
    real_store: RealStore, proxy: StoreProxy, store: MinioStore, prefix: str
) -> None:
    old = real_store.store.create(f"{prefix}a", b"before")
    with proxy.when(Rule("PUT", "", answer_lost)):
        new = store.replace(f"{prefix}a", b"ours", old)
    assert real_store.store.get(f"{prefix}a").body == b"ours"
    assert real_store.store.get(f"{prefix}a").etag == new


def test_a_create_that_lost_to_another_and_whose_answer_is_lost_raises(
    real_store: RealStore, proxy: StoreProxy, store: MinioStore, prefix: str
) -> None:
    def another_wins(exchange: Exchange) -> None:
        real_store.store.create(f"{prefix}a", b"theirs")
        answer_lost(exchange)

    with proxy.when(Rule("PUT", "", another_wins)), pytest.raises(StoreUnavailable):
        store.create(f"{prefix}a", b"ours")
    with pytest.raises(ObjectExists):
        store.create(f"{prefix}a", b"ours")
    assert real_store.store.get(f"{prefix}a").body == b"theirs"


def test_a_replace_that_lost_to_another_and_whose_answer_is_lost_raises(
    real_store: RealStore, proxy: StoreProxy, store: MinioStore, prefix: str
) -> None:
    old = real_store.store.create(f"{prefix}a", b"before")

    def another_wins(exchange: Exchange) -> None:
        real_store.store.replace(f"{prefix}a", b"theirs", old)
        answer_lost(exchange)

    with proxy.when(Rule("PUT", "", another_wins)), pytest.raises(StoreUnavailable):
        store.replace(f"{prefix}a", b"ours", old)
    with pytest.raises(ObjectChanged):
        store.replace(f"{prefix}a", b"ours", old)
    assert real_store.store.get(f"{prefix}a").body == b"theirs"


def test_a_write_that_never_arrives_raises_and_can_be_sent_again(
    real_store: RealStore, proxy: StoreProxy, store: MinioStore, prefix: str
) -> None:
    with proxy.when(Rule("PUT", "", lost, times=100)), pytest.raises(StoreUnavailable):
        store.create(f"{prefix}a", b"ours")
    assert list(real_store.store.keys(prefix)) == []
    store.create(f"{prefix}a", b"ours")


def test_a_write_whose_body_never_arrives_leaves_nothing(
    real_store: RealStore, proxy: StoreProxy, store: MinioStore, prefix: str
) -> None:
    old = real_store.store.create(f"{prefix}old", b"before")
    with proxy.when(Rule("PUT", "", lost_body, times=100)):
        for write in (
            lambda: store.put(f"{prefix}a", b"one"),
            lambda: store.create(f"{prefix}b", b"one"),
            lambda: store.replace(f"{prefix}old", b"after", old),
        ):
            with pytest.raises(StoreUnavailable):
                write()
    assert list(real_store.store.keys(prefix)) == [f"{prefix}old"]
    assert real_store.store.get(f"{prefix}old").body == b"before"


@pytest.mark.parametrize("action", [refused, lost], ids=["503", "lost"])
def test_a_conditional_write_that_came_to_nothing_is_sent_again(
    real_store: RealStore, proxy: StoreProxy, store: MinioStore, prefix: str, action: Action
) -> None:
    with proxy.when(Rule("PUT", "", action, times=2)):
        etag = store.create(f"{prefix}a", b"one")
    with proxy.when(Rule("PUT", "", action, times=2)):
        store.replace(f"{prefix}a", b"two", etag)
    assert real_store.store.get(f"{prefix}a").body == b"two"


@pytest.mark.parametrize("action", [refused, answer_lost], ids=["503", "answer lost"])
def test_four_bad_answers_in_a_row_are_borne_and_five_are_reported(
    real_store: RealStore, proxy: StoreProxy, store: MinioStore, prefix: str, action: Action
) -> None:
    with proxy.when(Rule("PUT", "", action, times=4)):
        store.put(f"{prefix}a", b"one")
    assert real_store.store.get(f"{prefix}a").body == b"one"
    with proxy.when(Rule("GET", "", action, times=5)) as rule, pytest.raises(StoreUnavailable):
        store.get(f"{prefix}a")
    assert rule.done == 5


def test_silence_is_borne_twice_and_reported_then(
    real_store: RealStore, proxy: StoreProxy, store: MinioStore, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(f"{prefix}a", b"one")
    given_up = threading.Event()
    monkeypatch.setattr(minio_store, "_READ_TIMEOUT_S", 0.3)
    with proxy.when(Rule("GET", "", held(given_up), times=5)) as rule, pytest.raises(StoreUnavailable):
        connect(proxy.endpoint).get(f"{prefix}a")
    given_up.set()
    assert rule.done == 3


def test_a_write_that_was_overwritten_before_it_was_known_to_have_won_is_not_called_lost(
    real_store: RealStore, proxy: StoreProxy, store: MinioStore, prefix: str
) -> None:
    old = real_store.store.create(f"{prefix}a", b"before")

    def arrives_and_is_overwritten(exchange: Exchange) -> None:
        answer_lost(exchange)
        real_store.store.replace(f"{prefix}a", b"theirs", real_store.store.get(f"{prefix}a").etag)

    with proxy.when(Rule("PUT", "", arrives_and_is_overwritten)), pytest.raises(StoreUnavailable):
        store.replace(f"{prefix}a", b"ours", old)
    assert real_store.store.get(f"{prefix}a").body == b"theirs"


def test_nothing_listening_is_reported_soon() -> None:
    _assert_reported_soon(connect(f"http://127.0.0.1:{free_ports(1)[0]}"))


def test_an_address_where_nobody_answers_is_reported_soon() -> None:
    # A full backlog: the kernel drops the connection requests, as a firewall would.
    with socket.socket() as listener, socket.socket() as filler:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filler.connect(listener.getsockname())
        _assert_reported_soon(connect(f"http://127.0.0.1:{listener.getsockname()[1]}"))


def _assert_reported_soon(store: MinioStore) -> None:
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        store.ensure_bucket(create=True)
    assert time.monotonic() - started < _REPORTED_WITHIN_S


def test_a_wrong_secret_is_not_a_store_that_is_away(real_store: RealStore) -> None:
    stranger = MinioStore(real_store.endpoint, "personae", "wrong", "personae", "us-east-1")
    with pytest.raises(StoreForbidden):
        stranger.ensure_bucket(create=False)
    with pytest.raises(StoreForbidden):
        stranger.get("a")
    with pytest.raises(StoreForbidden):
        stranger.create("a", b"")


def test_a_missing_bucket_is_made_only_where_that_is_asked_for(real_store: RealStore) -> None:
    store = MinioStore(real_store.endpoint, "personae", "for-tests-only", "another-bucket", "us-east-1")
    with pytest.raises(StoreForbidden):
        store.ensure_bucket(create=False)
    store.ensure_bucket(create=True)
    store.ensure_bucket(create=False)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "ftp://127.0.0.1", "http://", ""])
def test_an_endpoint_that_is_no_http_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="allowed is http"):
        connect(endpoint)


def test_a_listing_says_what_an_object_is_and_its_parts_come_only_while_it_is_that(
    real_store: RealStore, prefix: str
) -> None:
    store, key = real_store.store, f"{prefix}folder/x"
    store.put(key, b"0123456789")
    (listed,) = store.listing(prefix)
    assert (listed.key, listed.size_bytes, listed.etag) == (key, 10, store.get(key).etag)
    assert store.get_part(key, listed.etag, 3, 4) == b"3456"
    with pytest.raises(StoreUnavailable, match="3 bytes came from 7; asked were 4"):
        store.get_part(key, listed.etag, 7, 4)
    store.put(key, b"9876543210")
    with pytest.raises(ObjectChanged):
        store.get_part(key, listed.etag, 3, 4)
    store.delete(key)
    with pytest.raises(ObjectMissing):
        store.get_part(key, listed.etag, 3, 4)
