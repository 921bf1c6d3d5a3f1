"""The traps of a store across a network: lost answers, lost races, silence, refusals."""

import socket
import time
from collections.abc import Iterator

import pytest

from service_kit.minio_store import MinioStore
from service_kit.store import ObjectChanged, ObjectExists, StoreForbidden, StoreUnavailable
from tests.contract.cut_answers import CuttingProxy, cutting_proxy
from tests.real_store import RealStore, connect, free_ports

_REPORTED_WITHIN_S = 5.0


@pytest.fixture
def proxy(real_store: RealStore) -> Iterator[CuttingProxy]:
    with cutting_proxy(real_store.endpoint) as running:
        yield running


def test_a_create_whose_answer_is_lost_reports_that_it_won(
    real_store: RealStore, proxy: CuttingProxy, prefix: str
) -> None:
    with proxy.cutting(before_write=lambda: True):
        etag = connect(proxy.endpoint).create(f"{prefix}a", b"ours")
    assert real_store.store.get(f"{prefix}a").body == b"ours"
    assert real_store.store.get(f"{prefix}a").etag == etag


def test_a_replace_whose_answer_is_lost_reports_that_it_won(
    real_store: RealStore, proxy: CuttingProxy, prefix: str
) -> None:
    old = real_store.store.create(f"{prefix}a", b"before")
    with proxy.cutting(before_write=lambda: True):
        new = connect(proxy.endpoint).replace(f"{prefix}a", b"ours", old)
    assert real_store.store.get(f"{prefix}a").body == b"ours"
    assert real_store.store.get(f"{prefix}a").etag == new


def test_a_create_that_lost_to_another_and_whose_answer_is_lost_raises(
    real_store: RealStore, proxy: CuttingProxy, prefix: str
) -> None:
    def another_wins() -> bool:
        real_store.store.create(f"{prefix}a", b"theirs")
        return True

    store = connect(proxy.endpoint)
    with proxy.cutting(another_wins), pytest.raises(StoreUnavailable):
        store.create(f"{prefix}a", b"ours")
    with pytest.raises(ObjectExists):
        store.create(f"{prefix}a", b"ours")
    assert real_store.store.get(f"{prefix}a").body == b"theirs"


def test_a_replace_that_lost_to_another_and_whose_answer_is_lost_raises(
    real_store: RealStore, proxy: CuttingProxy, prefix: str
) -> None:
    old = real_store.store.create(f"{prefix}a", b"before")

    def another_wins() -> bool:
        real_store.store.replace(f"{prefix}a", b"theirs", old)
        return True

    store = connect(proxy.endpoint)
    with proxy.cutting(another_wins), pytest.raises(StoreUnavailable):
        store.replace(f"{prefix}a", b"ours", old)
    with pytest.raises(ObjectChanged):
        store.replace(f"{prefix}a", b"ours", old)
    assert real_store.store.get(f"{prefix}a").body == b"theirs"


def test_a_write_that_never_arrived_raises_and_can_be_sent_again(
    real_store: RealStore, proxy: CuttingProxy, prefix: str
) -> None:
    store = connect(proxy.endpoint)
    with proxy.cutting(before_write=lambda: False), pytest.raises(StoreUnavailable):
        store.create(f"{prefix}a", b"ours")
    assert list(real_store.store.keys(prefix)) == []
    store.create(f"{prefix}a", b"ours")


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
