"""What the checks of a store have in common: two connections to it, keys of their own, and races.

Its one rule: every key that is used here is remembered, because a bad store may not list what it holds.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from service_kit.store import ObjectChanged, ObjectExists, ObjectStore, StoreUnavailable


@dataclass(frozen=True)
class Effort:
    """writers: how many race for a key, and rounds: how often. whole: with checks that write many or large objects."""

    writers: int
    rounds: int
    whole: bool


class Broken(Exception):
    """The store did what it must not; the text is what was seen."""


class Bench:
    """Two connections to one store, and every key that a run may have written."""

    def __init__(self, here: ObjectStore, there: ObjectStore, prefix: str, effort: Effort) -> None:
        self.here = here
        self.there = there
        self.prefix = prefix
        self.writers = effort.writers
        self.rounds = effort.rounds
        self.keys: set[str] = set()

    def key(self, name: str) -> str:
        """The object key of a name, below the prefix of this run."""
        key = self.prefix + name
        self.keys.add(key)
        return key

    def race(self, key: str, etag: str | None) -> str:
        """Let all writers create the key at once, or replace it where an ETag is given; return the ETag of the winner.

        Raises Broken, or StoreUnavailable where an answer is missing that could change the outcome.
        """
        go = threading.Event()
        # No two bodies are ever equal, since a body that is there already would pass for the writer's own.
        bodies = [f"writer {writer} after {etag}".encode() for writer in range(self.writers)]

        def attempt(writer: int) -> str | Exception:
            store, body = (self.here, self.there)[writer % 2], bodies[writer]
            go.wait()
            try:
                return store.create(key, body) if etag is None else store.replace(key, body, etag)
            except (ObjectExists, ObjectChanged, StoreUnavailable) as error:
                return error

        with ThreadPoolExecutor(self.writers) as pool:
            try:
                attempts = [pool.submit(attempt, writer) for writer in range(self.writers)]
            finally:
                # Also where something interrupts us: nobody may be left waiting.
                go.set()
            answers = [attempt.result() for attempt in attempts]
        winners = {writer: answer for writer, answer in enumerate(answers) if isinstance(answer, str)}
        if len(winners) > 1:
            raise Broken(f"{len(winners)} of {self.writers} writers at once were told that they had won")
        for answer in answers:
            if isinstance(answer, StoreUnavailable):
                raise answer
        if not winners:
            raise Broken(f"all of {self.writers} writers at once were refused")
        winner, won = winners.popitem()
        hold(self.there, key, bodies[winner])
        return won


def hold(store: ObjectStore, key: str, body: bytes) -> None:
    """Raise Broken where a read gives anything but these bytes."""
    found = store.get(key).body
    if found != body:
        raise Broken(f"a read gave {found[:20]!r} where {body[:20]!r} had been written")
