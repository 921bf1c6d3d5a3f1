"""What every object store must do, run over the fake and over a real S3 server."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from service_kit.store import ObjectChanged, ObjectExists, ObjectMissing, ObjectStore

_WRITERS = 12
_ROUNDS = 5
# More than a listing holds in one answer.
_MANY = 1_050


def _race(attempt: Callable[[int], str]) -> list[int]:
    """Run twelve attempts at once; return who won."""

    def won(writer: int) -> bool:
        try:
            attempt(writer)
        except (ObjectExists, ObjectChanged):
            return False
        return True

    with ThreadPoolExecutor(_WRITERS) as writers:
        outcomes = list(writers.map(won, range(_WRITERS)))
    return [writer for writer, success in enumerate(outcomes) if success]


def test_what_was_put_is_got(store: ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}a", b"first")
    assert store.get(f"{prefix}a").body == b"first"
    store.put(f"{prefix}a", b"second")
    assert store.get(f"{prefix}a").body == b"second"


def test_an_empty_object_is_an_object(store: ObjectStore, prefix: str) -> None:
    store.create(f"{prefix}empty", b"")
    assert store.get(f"{prefix}empty").body == b""
    assert list(store.keys(prefix)) == [f"{prefix}empty"]


def test_a_missing_object_is_said_to_be_missing(store: ObjectStore, prefix: str) -> None:
    with pytest.raises(ObjectMissing):
        store.get(f"{prefix}nothing")
    with pytest.raises(ObjectMissing):
        store.get_range(f"{prefix}nothing", 0, 1)


@pytest.mark.parametrize(
    ("offset", "length", "expected"), [(0, 4, b"0123"), (3, 100, b"3456789"), (10, 5, b""), (50, 5, b"")]
)
def test_a_range_ends_with_the_object(
    store: ObjectStore, prefix: str, offset: int, length: int, expected: bytes
) -> None:
    store.put(f"{prefix}digits", b"0123456789")
    assert store.get_range(f"{prefix}digits", offset, length) == expected


def test_a_large_object_comes_back_whole(store: ObjectStore, prefix: str) -> None:
    body = bytes(range(256)) * 32_768  # 8 MiB
    store.create(f"{prefix}large", body)
    assert store.get(f"{prefix}large").body == body
    assert store.get_range(f"{prefix}large", len(body) - 3, 10) == body[-3:]


def test_deleting_twice_is_no_error(store: ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}a", b"")
    store.delete(f"{prefix}a")
    store.delete(f"{prefix}a")
    with pytest.raises(ObjectMissing):
        store.get(f"{prefix}a")


def test_keys_are_listed_in_order_after_a_key(store: ObjectStore, prefix: str) -> None:
    for name in ("b", "a/2", "a/10", "c/x/y", "a"):
        store.put(f"{prefix}{name}", name.encode())
    assert list(store.keys(prefix)) == [f"{prefix}{name}" for name in ("a", "a/10", "a/2", "b", "c/x/y")]
    assert list(store.keys(prefix, after=f"{prefix}a/10")) == [f"{prefix}{name}" for name in ("a/2", "b", "c/x/y")]
    assert list(store.keys(f"{prefix}a/")) == [f"{prefix}a/10", f"{prefix}a/2"]
    assert list(store.keys(f"{prefix}z")) == []


def test_folders_are_listed_once_in_order_after_a_folder(store: ObjectStore, prefix: str) -> None:
    for name in ("2/x", "2/y", "10/deep/z", "file", "3/x"):
        store.put(f"{prefix}{name}", b"")
    assert list(store.folders(prefix)) == [f"{prefix}10/", f"{prefix}2/", f"{prefix}3/"]
    assert list(store.folders(prefix, after=f"{prefix}2/")) == [f"{prefix}3/"]
    assert list(store.folders(f"{prefix}nothing/")) == []


def test_a_listing_of_more_than_a_page_is_whole(store: ObjectStore, prefix: str) -> None:
    wanted = [f"{prefix}{number:04d}/x" for number in range(_MANY)]
    with ThreadPoolExecutor(_WRITERS) as writers:
        list(writers.map(lambda key: store.put(key, b""), wanted))
    assert list(store.keys(prefix)) == wanted
    assert list(store.folders(prefix)) == [key.removesuffix("x") for key in wanted]


def test_create_never_overwrites(store: ObjectStore, prefix: str) -> None:
    etag = store.create(f"{prefix}a", b"first")
    with pytest.raises(ObjectExists):
        store.create(f"{prefix}a", b"second")
    assert store.get(f"{prefix}a").body == b"first"
    assert store.get(f"{prefix}a").etag == etag


def test_creating_the_same_bytes_again_counts_as_our_own_write(store: ObjectStore, prefix: str) -> None:
    assert store.create(f"{prefix}a", b"same") == store.create(f"{prefix}a", b"same")


def test_replace_needs_the_current_etag(store: ObjectStore, prefix: str) -> None:
    old = store.create(f"{prefix}a", b"first")
    new = store.replace(f"{prefix}a", b"second", old)
    assert store.get(f"{prefix}a").etag == new
    with pytest.raises(ObjectChanged):
        store.replace(f"{prefix}a", b"third", old)
    assert store.get(f"{prefix}a").body == b"second"


def test_replacing_what_does_not_exist_writes_nothing(store: ObjectStore, prefix: str) -> None:
    etag = store.create(f"{prefix}a", b"body")
    store.delete(f"{prefix}a")
    with pytest.raises(ObjectChanged):
        store.replace(f"{prefix}a", b"other", etag)
    assert list(store.keys(prefix)) == []


def test_of_twelve_that_create_one_wins(store: ObjectStore, prefix: str) -> None:
    for round_number in range(_ROUNDS):
        key = f"{prefix}{round_number}"
        winners = _race(lambda writer, key=key: store.create(key, f"writer {writer}".encode()))
        assert len(winners) == 1
        assert store.get(key).body == f"writer {winners[0]}".encode()


def test_of_twelve_that_replace_one_wins(store: ObjectStore, prefix: str) -> None:
    key = f"{prefix}counter"
    etag = store.create(key, b"start")
    for round_number in range(_ROUNDS):
        winners = _race(
            lambda writer, etag=etag, round_number=round_number: store.replace(
                key, f"round {round_number}, writer {writer}".encode(), etag
            )
        )
        assert len(winners) == 1
        stored = store.get(key)
        assert stored.body == f"round {round_number}, writer {winners[0]}".encode()
        etag = stored.etag
