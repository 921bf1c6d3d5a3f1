"""Work beside the step loop: a thread that takes whatever waits, a batch at a time.

Its one rule: nobody fails for another. A batch that fails is halved until those that fail are alone.
"""

import logging
import queue
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

_logger = logging.getLogger(__name__)


def in_halves(
    batch: Sequence[T], attempt: Callable[[Sequence[T]], None], failed: Callable[[Sequence[T], Exception], None]
) -> None:
    """Attempt the batch, or else its halves. failed: told of every batch that failed, those of one item last."""
    try:
        attempt(batch)
    except Exception as error:
        failed(batch, error)
        if len(batch) > 1:
            middle = (len(batch) + 1) // 2
            in_halves(batch[:middle], attempt, failed)
            in_halves(batch[middle:], attempt, failed)


class BatchThread(Generic[T]):
    """Hands items to `attempt`, those of one group together and at most `most` at once."""

    def __init__(
        self,
        name: str,
        most: int,
        group: Callable[[T], Hashable],
        attempt: Callable[[Sequence[T]], None],
        failed: Callable[[Sequence[T], Exception], None],
    ) -> None:
        self._most = most
        self._group = group
        self._attempt = attempt
        self._failed = failed
        self._items: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Have an item worked on. From any thread."""
        self._items.put(item)

    def close(self) -> None:
        """Work off what was put already and stop the thread."""
        self._items.put(None)
        self._thread.join()

    def _work(self, batch: Sequence[T]) -> None:
        try:
            in_halves(batch, self._attempt, self._failed)
        except Exception:
            # A defect in telling of a failure; whoever comes next is still to be served.
            _logger.exception("a batch of %s failed, and so did telling of it", self._thread.name)

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            groups: dict[Hashable, list[T]] = {self._group(item): [item]}
            is_closed = False
            while not self._items.empty() and not is_closed:
                following = self._items.get()
                is_closed = following is None
                if following is not None:
                    groups.setdefault(self._group(following), []).append(following)
            for items in groups.values():
                for start in range(0, len(items), self._most):
                    self._work(items[start : start + self._most])
            if is_closed:
                return
