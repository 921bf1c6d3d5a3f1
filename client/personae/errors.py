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
    ├── Corrupted            the bytes are damaged: download again; where they are damaged in the store, train again
    ├── Busy                 the server is full: wait `retry_after_s`, then ask again
    ├── Unavailable          no server answers, however patiently the client asked again: check the address, try later
    ├── DeadlineExceeded     it took longer than the call may: ask for less, or be more patient
    ├── ServerDefect         try once more, then report it
    ├── TrainingFailed       read `reason` and the message; the training will not go on
    └── TrainingCancelled    somebody asked for it

Anything else that escapes is a mistake in the calling program (TypeError) or an error of this machine (OSError).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


class PersonaeError(Exception):
    """Base of all of them. `reason` is stable and meant for programs (may be empty), the text is meant for people."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Violation:
    """One field of a request that is wrong: its name, and what was found and what is allowed."""

    field: str
    description: str


class InvalidRequest(PersonaeError):
    """The request is wrong whenever it is sent. `violations` holds everything that is wrong with it, at once."""

    def __init__(self, violations: Sequence[Violation], *, message: str = "", reason: str = "") -> None:
        found = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        super().__init__(found or message, reason=reason)
        self.violations = tuple(violations)


class Unauthenticated(PersonaeError):
    """The server does not know who calls: TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED or CERTIFICATE_UNKNOWN."""


class PermissionDenied(PersonaeError):
    """The server knows who calls, and its role may not do this."""


class TooLarge(PersonaeError):
    """A message or its metadata is larger than the server takes."""


class NotFound(PersonaeError):
    """The named resource does not exist in this project."""


class AlreadyExists(PersonaeError):
    """The id is taken, or a request id was used for another request (reason REQUEST_ID_REUSED)."""


class PreconditionFailed(PersonaeError):
    """The request is well formed, but something must change first: `reason` says what, as in DATASET_NOT_READY."""


class NotBuilt(PersonaeError):
    """The server does not know this call."""


class Corrupted(PersonaeError):
    """Bytes are missing or do not have their hash."""


class Busy(PersonaeError):
    """The server is full. `retry_after_s`: seconds it asks to be left alone; None where it did not say."""

    def __init__(self, message: str, *, reason: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s


class Unavailable(PersonaeError):
    """The server is starting, stopping, unreachable, or without its store. `retry_after_s` as for Busy."""

    def __init__(self, message: str, *, reason: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(PersonaeError):
    """The answer did not come in time. A mutation may or may not have happened."""


class ServerDefect(PersonaeError):
    """The server broke its contract; its log says more."""


class TrainingFailed(PersonaeError):
    """The training ended without an adapter. `reason` is for example NON_FINITE_LOSS."""


class TrainingCancelled(PersonaeError):
    """The training was cancelled before its adapter was published."""


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
    return _BY_CODE.get(code, ServerDefect)(message, reason=reason)


def _status(error: grpc.RpcError) -> status_pb2.Status:
    try:
        # A failed call is its own error: every RpcError that a call raises is also a grpc.Call.
        return rpc_status.from_call(cast(grpc.Call, error)) or status_pb2.Status()
    except ValueError:
        # The details contradict the status they came with; a proxy may have changed it. The status wins.
        return status_pb2.Status()
