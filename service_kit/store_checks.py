"""What a store must do for the services to be right: one function a check, over two connections to the store.

Its one rule: a check fails on what it saw, never on time; a store that does not answer has failed nothing.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from service_kit.store import ObjectChanged, ObjectExists, ObjectMissing
from service_kit.store_bench import Bench, Broken, hold

_DIGITS = b"0123456789"
_LARGE_BYTES = 6 * 2**20  # above 5 MiB the SDK uploads in parts
_MANY = 1_050  # more than a listing holds in one answer
_COUNTERS = 4
# Beyond this many refused increments for each, nothing moves.
_SLACK = 10


@dataclass(frozen=True)
class Check:
    """`run` returns what it saw, or raises Broken or a StoreError. heavy: it writes many or large objects."""

    name: str
    promise: str
    needed_for: str
    run: Callable[[Bench], str]
    heavy: bool = False


def _refuses_a_second_create(bench: Bench) -> str:
    key = bench.key("once")
    bench.here.create(key, b"first")
    try:
        bench.there.create(key, b"second")
    except ObjectExists:
        hold(bench.here, key, b"first")
        return "the second create was refused"
    raise Broken("a second create of one key was answered as done")


def _lets_one_creator_win(bench: Bench) -> str:
    for number in range(bench.rounds):
        bench.race(bench.key(f"creators/{number}"), None)
    return f"one winner in each of {bench.rounds} races of {bench.writers} writers"


def _refuses_a_stale_etag(bench: Bench) -> str:
    key = bench.key("stale")
    old = bench.here.create(key, b"first")
    bench.here.replace(key, b"second", old)
    try:
        bench.there.replace(key, b"third", old)
    except ObjectChanged:
        hold(bench.here, key, b"second")
        return "the replace with the old ETag was refused"
    raise Broken("a replace with an old ETag was answered as done")


def _refuses_to_replace_nothing(bench: Bench) -> str:
    etag = bench.here.create(bench.key("something"), b"first")
    try:
        bench.there.replace(bench.key("nothing"), b"second", etag)
    except ObjectChanged:
        return "the replace of a missing key was refused"
    raise Broken("a replace of a missing key was answered as done")


def _lets_one_replacer_win(bench: Bench) -> str:
    key = bench.key("replacers")
    etag = bench.here.create(key, b"start")
    for _ in range(bench.rounds):
        etag = bench.race(key, etag)
    return f"one winner in each of {bench.rounds} races of {bench.writers} writers"


def _loses_no_increment(bench: Bench) -> str:
    threads = min(_COUNTERS, bench.writers)
    key, wanted = bench.key("counter"), threads * bench.rounds
    bench.here.create(key, b"0")

    def count(thread: int) -> None:
        store = (bench.here, bench.there)[thread % 2]
        done = 0
        for attempt in range(_SLACK * wanted):
            stored = store.get(key)
            value = int(stored.body.split()[0])
            try:
                # Bodies differ, since equal ones would pass for the writer's own.
                store.replace(key, b"%d by %d at %d" % (value + 1, thread, attempt), stored.etag)
            except ObjectChanged:
                continue
            done += 1
            if done == bench.rounds:
                return
        raise Broken(f"a writer was refused {_SLACK * wanted - done} times")

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(count, range(threads)))
    found = int(bench.here.get(key).body.split()[0])
    if found != wanted:
        raise Broken(f"{wanted} increments were answered as done, and the counter shows {found}")
    return f"{wanted} increments by {threads} writers, and the counter shows {found}"


def _gives_one_etag(bench: Bench) -> str:
    key = bench.key("etag")
    first = bench.here.create(key, b"first")
    if bench.there.get(key).etag != first:
        raise Broken("a read gave another ETag than the create before it")
    second = bench.here.replace(key, b"second", first)
    if bench.there.get(key).etag != second:
        raise Broken("a read gave another ETag than the replace before it")
    if first == second:
        raise Broken("two contents have the same ETag")
    return "reads gave the ETags of the writes before them"


def _reads_what_was_written(bench: Bench) -> str:
    for number in range(bench.rounds):
        key = bench.key(f"read/{number}")
        for body in (b"first", b"second", b"third"):
            bench.here.put(key, body)
            hold(bench.there, key, body)
        bench.here.delete(key)
        try:
            bench.there.get(key)
        except ObjectMissing:
            continue
        raise Broken("a deleted object was read")
    return f"{3 * bench.rounds} writes and {bench.rounds} deletes seen by another connection at once"


def _lists_what_was_written(bench: Bench) -> str:
    for number in range(bench.rounds):
        folder = f"{bench.prefix}list/"
        key = bench.key(f"list/{number}/x")
        bench.here.create(key, b"")
        if key not in bench.there.keys(folder):
            raise Broken("a new key was not in the list")
        if f"{folder}{number}/" not in bench.there.folders(folder):
            raise Broken("the folder of a new key was not in the list")
        bench.here.delete(key)
        if key in bench.there.keys(folder):
            raise Broken("a deleted key was in the list")
    return f"{bench.rounds} writes and deletes seen in lists of another connection at once"


def _lists_in_order(bench: Bench) -> str:
    names = ("b", "a/2", "a/10", "c/x/y")
    for name in names:
        bench.here.create(bench.key(f"order/{name}"), name.encode())
    folder = f"{bench.prefix}order/"
    _listed(bench.there.keys, folder, "", ("a/10", "a/2", "b", "c/x/y"))
    _listed(bench.there.keys, folder, "a/10", ("a/2", "b", "c/x/y"))
    _listed(bench.there.folders, folder, "", ("a/", "c/"))
    _listed(bench.there.folders, folder, "a/", ("c/",))
    return "keys and folders came in order, and from where they were asked"


def _gives_ranges(bench: Bench) -> str:
    key = bench.key("digits")
    bench.here.create(key, _DIGITS)
    for offset, length in ((0, 4), (3, 100), (10, 5), (50, 5)):
        found, wanted = bench.there.get_range(key, offset, length), _DIGITS[offset : offset + length]
        if found != wanted:
            raise Broken(f"{length} bytes from {offset} of {_DIGITS!r} were {found[:20]!r}")
    return "ranges inside, across and beyond the end were right"


def _deletes_twice(bench: Bench) -> str:
    key = bench.key("deleted")
    bench.here.create(key, b"")
    bench.here.delete(key)
    try:
        bench.there.delete(key)
    except ObjectMissing:
        raise Broken("deleting what is gone was an error") from None
    return "deleting what is gone is no error"


def _keeps_a_large_object(bench: Bench) -> str:
    key, body = bench.key("large"), bytes(range(256)) * (_LARGE_BYTES // 256)
    bench.here.put(key, body)
    hold(bench.there, key, body)
    return f"{_LARGE_BYTES // 1024**2} MiB, uploaded in parts, came back whole"


def _lists_more_than_a_page(bench: Bench) -> str:
    wanted = [bench.key(f"many/{number:04d}") for number in range(_MANY)]
    with ThreadPoolExecutor(bench.writers) as pool:
        list(pool.map(lambda key: bench.here.put(key, b""), wanted))
    found = list(bench.there.keys(f"{bench.prefix}many/"))
    if found != wanted:
        raise Broken(f"of {_MANY} keys a list gave {len(set(found) & set(wanted))}, or not in order")
    return f"a list of {_MANY} keys was whole"


def _listed(ask: Callable[[str, str], Iterator[str]], folder: str, after: str, wanted: tuple[str, ...]) -> None:
    found = [key.removeprefix(folder) for key in ask(folder, after and folder + after)]
    if found != list(wanted):
        raise Broken(f"a list after {after!r} gave {found}, not {list(wanted)}")


_LEASES = "two workers would carry out one training, or two trainings publish one adapter version"
_RECORDS = "records would go back to an earlier state: a lease, an upload or a cancellation would be lost"
_READS = "a service would act on what is no longer true"
CHECKS = (
    Check("create-once", "refuses to create a key that exists", _LEASES, _refuses_a_second_create),
    Check("create-race", "lets one of many creators of a key win", _LEASES, _lets_one_creator_win),
    Check("replace-stale", "refuses to replace what has changed", _RECORDS, _refuses_a_stale_etag),
    Check("replace-missing", "refuses to replace what does not exist", _RECORDS, _refuses_to_replace_nothing),
    Check("replace-race", "lets one of many replacers of a key win", _RECORDS, _lets_one_replacer_win),
    Check("counter", "loses no change under contention", _RECORDS, _loses_no_increment),
    Check("etags", "answers writes with the ETag that reads give", _RECORDS, _gives_one_etag),
    Check("read-after-write", "reads what was just written or deleted", _READS, _reads_what_was_written),
    Check(
        "list-after-write", "lists what was just written", "trainings or adapters go unseen", _lists_what_was_written
    ),
    Check("list-order", "lists in order, from where it is asked", "pages would skip or repeat", _lists_in_order),
    Check("ranges", "gives parts of an object", "downloads would be damaged", _gives_ranges),
    Check("delete-twice", "deletes what is gone without an error", "repeated deletions would fail", _deletes_twice),
    Check("large-object", "keeps large objects", "adapters would be damaged", _keeps_a_large_object, heavy=True),
    Check("long-list", "lists more than a page", "trainings would go unseen", _lists_more_than_a_page, heavy=True),
)
