"""The errors a caller can meet, named after what the caller can do. Pure; `error_status.py` gives each its gRPC status.

ServiceError
├── InvalidRequest       mend the named fields
├── Unauthenticated      bring a token or certificate that is known here
├── NotPermitted         ask the operator for another role
├── ResourceMissing      name another resource, or make it first
├── ResourceExists       choose another id, or use what exists
├── PreconditionUnmet    change the named state first
├── SequenceOutOfRange   ask within the range
├── TryLater             the service is full: wait, then send again
├── DeadlineTooShort     allow more time, or ask for less
├── ServiceUnavailable   the service or its store is away: wait, then send again
├── WriteConflict        others kept winning: send again
└── DataLost             stored bytes are damaged: make the resource again
"""

from dataclasses import dataclass, field

# What was found comes from the caller and may be long; an error must not be.
_SHOWN_CHARACTERS = 80


class ServiceError(Exception):
    """Base of all of them. `reason` is stable and for programs; the text is for people."""

    reason = "INTERNAL"


@dataclass(frozen=True)
class Violation:
    """One field that is wrong: what was found and what is allowed."""

    field: str
    description: str


class InvalidRequest(ServiceError):
    """The request is wrong whenever it is sent. Carries every violation at once."""

    reason = "INVALID_REQUEST"

    def __init__(self, violations: list[Violation]) -> None:
        super().__init__("; ".join(f"{violation.field}: {violation.description}" for violation in violations))
        self.violations = violations


class Unauthenticated(ServiceError):
    """Nobody knows who calls. The text never repeats what was brought as a token."""

    def __init__(self, reason: str, description: str) -> None:
        super().__init__(description)
        self.reason = reason


class NotPermitted(ServiceError):
    """The caller is known, and may not call this rpc."""

    reason = "NOT_PERMITTED"


@dataclass
class Violations:
    """Collects what is wrong with a request, so that all of it is said together."""

    found: list[Violation] = field(default_factory=list)

    def add(self, field: str, description: str) -> None:
        """Note that a field is wrong."""
        self.found.append(Violation(field, description))

    def check(self, holds: bool, field: str, found: object, allowed: str) -> None:
        """Note a field unless `holds`."""
        if not holds:
            text = repr(found)
            shown = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
            self.add(field, f"found {shown}; allowed is {allowed}")

    def raise_if_any(self) -> None:
        """Raise InvalidRequest if anything was noted."""
        if self.found:
            raise InvalidRequest(self.found)


class ResourceMissing(ServiceError):
    """The named resource does not exist, or belongs to somebody else."""

    reason = "NOT_FOUND"

    def __init__(self, kind: str, name: str, hint: str = "") -> None:
        super().__init__(f"{kind} {name} does not exist" + (f"; {hint}" if hint else ""))
        self.kind, self.name = kind, name


class ResourceExists(ServiceError):
    """The named resource exists already."""

    def __init__(self, kind: str, name: str, hint: str, reason: str = "ALREADY_EXISTS") -> None:
        super().__init__(f"{kind} {name} exists already; {hint}")
        self.kind, self.name, self.reason = kind, name, reason


class PreconditionUnmet(ServiceError):
    """The request is well formed, but something must change first."""

    def __init__(self, reason: str, subject: str, description: str) -> None:
        super().__init__(description)
        self.reason, self.subject = reason, subject


class SequenceOutOfRange(ServiceError):
    """A position beyond what exists."""

    reason = "OUT_OF_RANGE"

    def __init__(self, field: str, found: int, earliest: int, latest: int) -> None:
        super().__init__(f"{field}: found {found}; allowed is {earliest} to {latest}")
        self.field = field


class TryLater(ServiceError):
    """The service is full at the moment. quota_of: the resource whose own share is used up, as `projects/{project}`."""

    def __init__(self, reason: str, description: str, retry_after_s: float, quota_of: str = "") -> None:
        super().__init__(description)
        self.reason, self.retry_after_s, self.quota_of = reason, retry_after_s, quota_of


class DeadlineTooShort(ServiceError):
    """The caller's deadline would pass before the answer, so nothing was begun.

    retry_after_s: when the same deadline would do, where waiting helps.
    """

    reason = "DEADLINE_TOO_SHORT"

    def __init__(self, description: str, retry_after_s: float | None) -> None:
        super().__init__(description)
        self.retry_after_s = retry_after_s


class ServiceUnavailable(ServiceError):
    """The service cannot answer now, through no fault of the request."""

    def __init__(self, reason: str, description: str, retry_after_s: float) -> None:
        super().__init__(description)
        self.reason, self.retry_after_s = reason, retry_after_s


class WriteConflict(ServiceError):
    """Other writers kept winning a compare-and-swap."""

    reason = "WRITE_CONFLICT"


class DataLost(ServiceError):
    """Stored bytes are missing or do not have their hash."""

    reason = "DATA_LOST"
