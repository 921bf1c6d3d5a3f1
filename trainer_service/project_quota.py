"""How many trainings of a project may be queued and running. Blocking; used by the threads that create trainings.

Its one rule: counted is what stands in the queue's index and what this process is about to write there, so one process
never lets in more than allowed. Another process is seen by what it has written: creations that reach P processes within
the same moment may together come to P times the limit, and no further.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from service_kit import schema
from service_kit.errors import TryLater
from service_kit.names import TrainingName
from service_kit.store import ObjectStore

# Trainings take minutes; asking much more often would only cost listings.
_RETRY_S = 30.0


class ProjectQuota:
    """Room for `most` trainings of each project; 0: there is always room."""

    def __init__(self, store: ObjectStore, most: int) -> None:
        self._store = store
        self._most = most
        self._lock = threading.Lock()
        # On their way into the queue, with how many threads create each: a request may be sent twice.
        self._coming: defaultdict[str, dict[TrainingName, int]] = defaultdict(dict)

    @contextmanager
    def place(self, name: TrainingName) -> Iterator[None]:
        """Hold a place until the training stands in the queue or is given up. Raises TryLater where there is none."""
        if not self._most:
            yield
            return
        with self._lock:
            coming = self._coming[name.project]
            # Who came before counts; who comes later counts this one. One of two always sees the other.
            active = coming.keys() - {name}
            coming[name] = coming.get(name, 0) + 1
        try:
            # After the look at what is coming: what has arrived since then is in the index.
            active |= self._queued(name.project) - {name}
            if len(active) >= self._most:
                project = f"projects/{name.project}"
                raise TryLater(
                    "PROJECT_TRAININGS",
                    f"{project} has {len(active)} trainings queued and running; {self._most} are allowed",
                    _RETRY_S,
                    project,
                )
            yield
        finally:
            self._leave(name)

    def _queued(self, project: str) -> set[TrainingName]:
        names = map(schema.training_of_queue_entry, self._store.keys(schema.queue_prefix()))
        return {name for name in names if name.project == project}

    def _leave(self, name: TrainingName) -> None:
        with self._lock:
            coming = self._coming[name.project]
            coming[name] -= 1
            if not coming[name]:
                del coming[name]
            if not coming:
                del self._coming[name.project]
