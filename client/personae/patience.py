"""How long the client keeps asking while nobody answers, and how fast. Pure: the time comes in as an argument.

Both clients pace their repeats here; all that differs between them is how they sleep.
"""

import random
from dataclasses import dataclass, replace

from personae.errors import Busy, Unavailable

_LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True)
class Patience:
    """How long the client waits, in seconds, before it gives up."""

    call_s: float = 30.0
    """For the answer to one call."""
    upload_s: float = 600.0
    """For one upload, of pictures or of an adapter."""
    generation_s: float = 3600.0
    """For one generation, however many images."""
    unanswered_s: float = 10.0
    """For a server to become available, before the first answer: the address may be wrong."""
    outage_s: float = 60.0
    """For a server to come back that has answered before: it may be restarting."""
    busy_s: float = 600.0
    """For a full server to take a request of `generate_many`, since an image of it came last."""
    silence_s: float = 15.0
    """For the next message of a stream that is known to have heartbeats or to be a download."""
    first_pause_s: float = 0.2
    """Before the first repeat; doubled with each, up to 5 seconds, unless the server says how long to wait."""


def after_an_answer(patience: Patience) -> Patience:
    """With a server that has answered: it is as long in coming back for a first message as for a later one."""
    return replace(patience, unanswered_s=max(patience.unanswered_s, patience.outage_s))


class Outage:
    """A run of failures without a success between them: paces the repeats, and ends them when patience does."""

    def __init__(self, limit_s: float, first_pause_s: float) -> None:
        self._limit_s, self._first_pause_s = limit_s, first_pause_s
        self._since_s: float | None = None
        self._pause_s = first_pause_s

    def over(self) -> None:
        """Something succeeded."""
        self._since_s, self._pause_s = None, self._first_pause_s

    def pause_s(self, error: Unavailable | Busy, now_s: float) -> float:
        """How long to sleep until the next try; raises `error` where that would be beyond the limit."""
        # Several threads may share an outage, and another's success may end it meanwhile.
        since_s = self._since_s
        if since_s is None:
            since_s = self._since_s = now_s
        # Full jitter spreads callers that lost the same server; what the server asks for is a minimum.
        pause_s = max(error.retry_after_s or 0.0, random.uniform(0.5, 1.0) * self._pause_s)
        if now_s + pause_s - since_s > self._limit_s:
            raise error
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return pause_s
