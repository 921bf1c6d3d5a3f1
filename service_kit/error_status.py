"""The one error table: which gRPC status an error has, and which google.rpc details it carries.

An interceptor applies it to unary and streaming calls alike. An error the table does not know becomes a logged INTERNAL
that says nothing about itself to the caller.
"""

import errno
import inspect
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from service_kit.document import UnreadableDocument
from service_kit.errors import (
    DataLost,
    DeadlineTooShort,
    InvalidRequest,
    NotPermitted,
    PreconditionUnmet,
    ResourceExists,
    ResourceMissing,
    SequenceOutOfRange,
    ServiceError,
    ServiceUnavailable,
    TryLater,
    Unauthenticated,
    Violation,
    WriteConflict,
)
from service_kit.handlers import Behaviour, Continuation, Handler, behaviour_of, doing_with_bytes
from service_kit.store import StoreForbidden, StoreUnavailable

_DOMAIN = "personae"
_STORE_RETRY_S = 2.0
_DISK_RETRY_S = 30.0
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# A status travels as metadata, of which clients take 8 KB: the text, and the violations in base64.
_MAX_TEXT_CHARACTERS = 1_000
_MAX_VIOLATION_BYTES = 3_000
_logger = logging.getLogger(__name__)

_TABLE: dict[type[Exception], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    NotPermitted: grpc.StatusCode.PERMISSION_DENIED,
    ResourceMissing: grpc.StatusCode.NOT_FOUND,
    ResourceExists: grpc.StatusCode.ALREADY_EXISTS,
    PreconditionUnmet: grpc.StatusCode.FAILED_PRECONDITION,
    SequenceOutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    TryLater: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineTooShort: grpc.StatusCode.DEADLINE_EXCEEDED,
    ServiceUnavailable: grpc.StatusCode.UNAVAILABLE,
    WriteConflict: grpc.StatusCode.ABORTED,
    DataLost: grpc.StatusCode.DATA_LOSS,
}


def to_status(error: Exception) -> status_pb2.Status:
    """The google.rpc.Status of any error."""
    if isinstance(error, StoreUnavailable):
        _logger.warning("the object store is away: %s", error)
        error = ServiceUnavailable("STORE_UNAVAILABLE", "the object store does not answer", _STORE_RETRY_S)
    if isinstance(error, StoreForbidden):
        _logger.error("the object store refuses us; check the credentials and the bucket", exc_info=error)
        return _status(grpc.StatusCode.INTERNAL, "the object store refuses the service", "STORE_FORBIDDEN", [])
    if isinstance(error, UnreadableDocument):
        _logger.error("a stored document is damaged, or of a newer release", exc_info=error)
        error = DataLost("what is stored of it cannot be read; the server's log says why")
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        _logger.error("a disk of this machine is full", exc_info=error)
        error = TryLater("DISK_FULL", "a disk of the server is full", _DISK_RETRY_S)
    code = _TABLE.get(type(error))
    if code is None or not isinstance(error, ServiceError):
        _logger.error("unexpected error", exc_info=error)
        return _status(grpc.StatusCode.INTERNAL, "internal error; the server's log has it", "INTERNAL", [])
    # Beyond ASCII a character of the text takes up to twelve bytes on the wire.
    text = str(error).encode("ascii", "backslashreplace").decode()[:_MAX_TEXT_CHARACTERS]
    return _status(code, text, error.reason, _details(error))


def _details(error: ServiceError) -> list[message.Message]:
    match error:
        case InvalidRequest():
            return [_bad_request(error.violations)]
        case ResourceMissing() | ResourceExists():
            return [error_details_pb2.ResourceInfo(resource_type=error.kind, resource_name=error.name)]
        case PreconditionUnmet():
            violation = error_details_pb2.PreconditionFailure.Violation(
                type=error.reason, subject=error.subject, description=str(error)[:_MAX_TEXT_CHARACTERS]
            )
            return [error_details_pb2.PreconditionFailure(violations=[violation])]
        case SequenceOutOfRange():
            violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=str(error))
            return [error_details_pb2.BadRequest(field_violations=[violation])]
        case TryLater() | ServiceUnavailable() | DeadlineTooShort() if error.retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(int(error.retry_after_s * 1000))
            return [error_details_pb2.RetryInfo(retry_delay=delay), *_quota_failure(error)]
    return []


def _quota_failure(error: ServiceError) -> list[message.Message]:
    if not isinstance(error, TryLater) or not error.quota_of:
        return []
    violation = error_details_pb2.QuotaFailure.Violation(subject=error.quota_of, description=str(error))
    return [error_details_pb2.QuotaFailure(violations=[violation])]


def _bad_request(violations: list[Violation]) -> error_details_pb2.BadRequest:
    """As many violations as fit, and how many more there are."""
    bad_request = error_details_pb2.BadRequest()
    for index, found in enumerate(violations):
        if bad_request.ByteSize() > _MAX_VIOLATION_BYTES:
            bad_request.field_violations.add(field="", description=f"and {len(violations) - index} more")
            break
        bad_request.field_violations.add(field=found.field, description=found.description)
    return bad_request


def _status(code: grpc.StatusCode, text: str, reason: str, details: list[message.Message]) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(reason=reason, domain=_DOMAIN)
    status = status_pb2.Status(code=code.value[0], message=text)
    for detail in (info, *details):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns what handlers raise into statuses, and bytes that are no request into INVALID_ARGUMENT.

    It wraps the handler itself: a `try` round `continuation()` would see nothing of what the handler raises. Requests
    reach the wrapped handler as bytes and are parsed there, because what a deserializer raises inside gRPC becomes an
    answer without a reason. Interceptors before this one therefore see bytes, those behind it messages.
    """

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        behaviour = behaviour_of(handler)
        wrap = _wrap_stream if handler.response_streaming else _wrap_unary
        parse: Any = handler.request_deserializer
        if parse is not None:
            behaviour = _parsing(behaviour, parse, handler.request_streaming)
        return doing_with_bytes(handler, wrap(behaviour))


def _parsing(behaviour: Behaviour, parse: Callable[[bytes], Any], is_streaming: bool) -> Behaviour:
    """A behaviour that takes the bytes of what `behaviour` takes, and raises InvalidRequest where they are garbage."""

    def one(body: bytes) -> Any:
        try:
            return parse(body)
        except Exception as error:
            description = f"found {len(body):,} bytes that are no message of this rpc: {error}"
            raise InvalidRequest([Violation("", description)]) from error

    async def each(bodies: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for body in bodies:
            yield one(body)

    return lambda request, context: behaviour(each(request) if is_streaming else one(request), context)


def _wrap_unary(behaviour: Behaviour) -> Behaviour:
    async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            answer = behaviour(request, context)
            return await answer if inspect.isawaitable(answer) else answer
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await abort(context, error)

    return handle


def _wrap_stream(behaviour: Behaviour) -> Behaviour:
    async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            answers = behaviour(request, context)
            if inspect.isawaitable(answers):
                # grpc's own health watch writes its answers itself.
                await answers
                return
            # Closed with the call, so that what the handler holds is freed at once.
            async with aclosing(answers):
                async for answer in answers:
                    yield answer
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await abort(context, error)

    return handle


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> NoReturn:
    """End a call with the status of an error."""
    found = to_status(error)
    status = rpc_status.to_status(found)
    # What was set before says which call it was; an abort would leave it out.
    metadata = (*(context.trailing_metadata() or ()), *status.trailing_metadata, *_pushback(found))
    await context.abort(status.code, status.details, metadata)


def _pushback(status: status_pb2.Status) -> list[tuple[str, str]]:
    """RetryInfo for gRPC itself, whose retries read no details (gRFC A6)."""
    retry = error_details_pb2.RetryInfo()
    return [
        ("grpc-retry-pushback-ms", str(retry.retry_delay.ToMilliseconds()))
        for detail in status.details
        if detail.Unpack(retry)
    ]
