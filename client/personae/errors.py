"""Everything the client raises on purpose, named after what the caller can do, and the one place where gRPC becomes it.

    PersonaeError
    ├── InvalidRequest       mend what `violations` names; asking again changes nothing
    ├── Unauthenticated      bring a token or certificate that the server knows, a new one where it has expired
    ├── PermissionDenied     ask the operator for a role that may do this
    ├── TooLarge             send less at once
    ├── NotFound             name another resource, or make it first
    ├── AlreadyExists        choose another id, or use what exists
    ├── PreconditionFailed   change the state that `reason` names first
    ├── NotBuilt             use a newer server
    ├── Corrupted            download again; where it is damaged in the store, train again
    ├── Busy                 wait `retry_after_s`, then ask again
    ├── Unavailable          check the address, or try later: it was asked again for as long as `Patience` allows
    ├── DeadlineExceeded     ask for less, or allow more time in `Patience`
    ├── ServerDefect         try once more, then report it with the server's log
    ├── TrainingFailed       read `reason` and the message, then train again; this training will not go on
    ├── TrainingCancelled    train again, unless you meant it
    └── Incomplete           keep what came; change what `missing` names, and ask for that alone

Every error carries its line of this table as `remedy`, and as a note below its traceback. Anything else that escapes is
a mistake in the calling program (TypeError) or an error of this machine (OSError).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


class PersonaeError(Exception):
    """Base of all of them. `reason` is stable and meant for programs (may be empty), the text is meant for people."""

    remedy: ClassVar[str] = "read the message"
    """What the caller can do, in a line."""

    def __init__(self, message: str, *, reason: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s
        """Seconds after which the same may do, where the server said so."""
        self.add_note(f"What to do: {self.remedy}.")

    def __reduce__(self) -> tuple[Any, ...]:
        # So that it crosses from a worker process to its parent: not every one is made from its text alone.
        return _revived, (type(self), *self.args), self.__dict__


def _revived(kind: type[PersonaeError], *args: str) -> PersonaeError:
    return kind.__new__(kind, *args)


@dataclass(frozen=True)
class Violation:
    """One field of a request that is wrong: its name, and what was found and what is allowed."""

    field: str
    description: str


@dataclass(frozen=True)
class Missing:
    """Images of a prompt of `generate_many` that could not be made."""

    prompt_index: int
    """Position among the prompts."""
    prompt: str
    seeds: tuple[int, ...]
    """Those without an image; empty where the server had not drawn them yet."""
    error: PersonaeError
    """Why."""


class InvalidRequest(PersonaeError):
    """The request is wrong whenever it is sent. `violations` holds everything that is wrong with it, at once."""

    remedy = "mend what `violations` names; asking again changes nothing"

    def __init__(self, violations: Sequence[Violation], *, message: str = "", reason: str = "") -> None:
        found = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        super().__init__(found or message, reason=reason)
        self.violations = tuple(violations)


class Unauthenticated(PersonaeError):
    """The server does not know who calls: TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED or CERTIFICATE_UNKNOWN."""

    remedy = "bring a token or certificate that the server knows, a new one where it has expired"


class PermissionDenied(PersonaeError):
    """The server knows who calls, and its role may not do this."""

    remedy = "ask the operator for a role that may do this"


class TooLarge(PersonaeError):
    """A message or its metadata is larger than the server takes."""

    remedy = "send less at once"


class NotFound(PersonaeError):
    """The named resource does not exist in this project."""

    remedy = "name another resource, or make it first"


class AlreadyExists(PersonaeError):
    """The id is taken, or a request id was used for another request (reason REQUEST_ID_REUSED)."""

    remedy = "choose another id, or use what exists"


class PreconditionFailed(PersonaeError):
    """The request is well formed, but something must change first: `reason` says what, as in DATASET_NOT_READY."""

    remedy = "change the state that `reason` names first"


class NotBuilt(PersonaeError):
    """The server does not know this call."""

    remedy = "use a newer server"


class Corrupted(PersonaeError):
    """Bytes are missing or do not have their hash."""

    remedy = "download again; where it is damaged in the store, train again"


class Busy(PersonaeError):
    """The server is full; it asks to be left alone for `retry_after_s`."""

    remedy = "wait `retry_after_s`, then ask again"


class Unavailable(PersonaeError):
    """The server is starting, stopping, unreachable, or without its store."""

    remedy = "check the address, or try later: it was asked again for as long as `Patience` allows"


class DeadlineExceeded(PersonaeError):
    """The answer did not come in time. A mutation may or may not have happened."""

    remedy = "ask for less, or allow more time in `Patience`"


class ServerDefect(PersonaeError):
    """The server broke its contract; its log says more."""

    remedy = "try once more, then report it with the server's log"


class TrainingFailed(PersonaeError):
    """The training ended without an adapter. `reason` is for example NON_FINITE_LOSS."""

    remedy = "read `reason` and the message, then train again; this training will not go on"


class TrainingCancelled(PersonaeError):
    """The training was cancelled before its adapter was published."""

    remedy = "train again, unless you meant it"


class Incomplete(PersonaeError):
    """`generate_many` is at its end, and some prompts failed for reasons of their own: `missing`. All else has come."""

    remedy = "keep what came; change what `missing` names, and ask for that alone"

    def __init__(self, missing: Sequence[Missing]) -> None:
        prompts = {found.prompt_index: str(found.error) for found in missing}
        shown = [f"prompt {prompt_index}: {error}" for prompt_index, error in prompts.items()]
        more = f"; and {len(shown) - 3} more" if len(shown) > 3 else ""
        super().__init__(f"{len(shown)} of the prompts did not get all their images: {'; '.join(shown[:3])}{more}")
        self.missing = tuple(missing)


_BY_CODE: dict[grpc.StatusCode, type[PersonaeError]] = {
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionFailed,
    grpc.StatusCode.UNIMPLEMENTED: NotBuilt,
    grpc.StatusCode.DATA_LOSS: Corrupted,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def from_rpc(error: grpc.RpcError) -> PersonaeError:
    """The error of the family that a failed call means, with everything its google.rpc details say."""
    status = _status(error)
    code, message = error.code(), status.message or error.details() or error.code().name
    reason, violations, retry_after_s = "", [], None
    for packed in status.details:
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if packed.Unpack(info):
            reason = info.reason
        elif packed.Unpack(bad):
            violations = [Violation(found.field, found.description) for found in bad.field_violations]
        elif packed.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000

    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE):
        return InvalidRequest(violations, message=message, reason=reason)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # gRPC itself answers with this code, and without details, when a message is larger than a peer takes.
        return Busy(message, reason=reason, retry_after_s=retry_after_s) if reason else TooLarge(message)
    # CANCELLED, where nobody here cancelled: a server that stops drops so what it had not begun, and so do proxies.
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED):
        return Unavailable(message, reason=reason, retry_after_s=retry_after_s)
    return _BY_CODE.get(code, ServerDefect)(message, reason=reason, retry_after_s=retry_after_s)


def _status(error: grpc.RpcError) -> status_pb2.Status:
    try:
        # A failed call is its own error: every RpcError that a call raises is also a grpc.Call.
        return rpc_status.from_call(cast(grpc.Call, error)) or status_pb2.Status()
    except ValueError:
        # The details contradict the status they came with; a proxy may have changed it. The status wins.
        return status_pb2.Status()
