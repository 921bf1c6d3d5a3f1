"""Who may wait: a bound on the images that are admitted and not yet finished.

Its one rule: a request is admitted whole or refused at once, with a time after which trying again makes sense. Used on
the event loop only.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import fmean

from service_kit.errors import TryLater

_REMEMBERED_IMAGES = 64
_MIN_RETRY_S, _MAX_RETRY_S = 0.5, 60.0
# Until an image has been finished here.
_UNMEASURED_IMAGE_S = 1.0


class Ticket:
    """The images of one admitted request."""

    def __init__(self, admission: "Admission", images: int) -> None:
        self.images_ahead = admission.waiting
        """Images that were admitted before and were not finished then."""
        self.unfinished = images
        self._admission = admission

    def finish_one(self) -> None:
        """Note that one of the images is finished."""
        self.unfinished -= 1
        self._admission.finished_one()


class Admission:
    """Counts images and measures how fast they finish."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self.limit = limit
        self.waiting = 0
        self._clock = clock
        self._busy_since = 0.0
        # Times between finished images while there was work. Groups finish together, so only the mean says something.
        self._intervals_s: deque[float] = deque(maxlen=_REMEMBERED_IMAGES)

    @contextmanager
    def admit(self, images: int) -> Iterator[Ticket]:
        """Hold places for `images` until each is finished or the block is left. Raises TryLater if they are too few."""
        excess = self.waiting + images - self.limit
        if excess > 0:
            raise TryLater(
                "QUEUE_FULL",
                f"{self.waiting} images wait already; {images} more would exceed the limit of {self.limit}",
                self._time_for(excess),
            )
        ticket = Ticket(self, images)
        if self.waiting == 0:
            self._busy_since = self._clock()
        self.waiting += images
        try:
            yield ticket
        finally:
            self.waiting -= ticket.unfinished

    def finished_one(self) -> None:
        """Free one place."""
        now = self._clock()
        self._intervals_s.append(now - self._busy_since)
        self._busy_since = now
        self.waiting -= 1

    def _time_for(self, images: int) -> float:
        image_s = fmean(self._intervals_s) if self._intervals_s else _UNMEASURED_IMAGE_S
        return min(max(images * image_s, _MIN_RETRY_S), _MAX_RETRY_S)
