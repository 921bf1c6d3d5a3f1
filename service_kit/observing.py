"""What a server tells of its calls: counted and timed, one log line each, one span each. The outermost interceptor.

Its one rule: it sees every call of ours end, however it ends, and nothing of what is in it: `naming.py` adds the names
of resources to the ids that are logged. Health and reflection are not looked at.
"""

import inspect
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode, Tracer

from service_kit.call_context import Here, arrive, make_current
from service_kit.handlers import Behaviour, Continuation, Handler, behaviour_of, doing
from service_kit.logs import FIELDS
from service_kit.metrics import ServiceMetrics

CALL_ID = "personae-call-id"
"""Trailing metadata of every answer and every refusal: under this id the logs have the call."""

_OURS = "/personae."
_DETAILS = "grpc-status-details-bin"
_CODES = {code.value[0]: code for code in grpc.StatusCode}
# Those of which the service, or what it stands on, is to blame.
_OURS_TO_BLAME = {"UNKNOWN", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
_logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Call:
    """One call, from its arrival to its end."""

    service: str
    method: str
    is_stream: bool
    here: Here
    opened: Span
    began_s: float = field(default_factory=time.perf_counter)
    has_answered: bool = False


_Begin = Callable[[Any], _Call]


class ObservingInterceptor(grpc.aio.ServerInterceptor):
    """Watches every call. tracer: None where nobody collects spans."""

    def __init__(self, metrics: ServiceMetrics, tracer: Tracer | None) -> None:
        self._metrics = metrics
        self._tracer = tracer

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(_OURS):
            return handler
        service, _, method = handler_call_details.method.lstrip("/").rpartition("/")
        is_stream = bool(handler.request_streaming or handler.response_streaming)

        def begin(context: Any) -> _Call:
            return self._begin(service, method, is_stream, context)

        wrap = _wrap_stream if handler.response_streaming else _wrap_unary
        return doing(handler, wrap(behaviour_of(handler), begin))

    def _begin(self, service: str, method: str, is_stream: bool, context: Any) -> _Call:
        # Each call has a task of its own, and with it a context that ends with it.
        ids = {"call": secrets.token_hex(8), "method": method}
        context.set_trailing_metadata(((CALL_ID, ids["call"]),))
        here = arrive(ids, self._tracer, _text_of(context.invocation_metadata()))
        opened = _server_span(here, service, method)
        make_current(opened)
        call = _Call(service, method, is_stream, here, opened)
        self._metrics.rpcs_in_flight.labels(service, method).inc()
        if is_stream:
            self._metrics.streams_open.labels(service, method).inc()
        context.add_done_callback(lambda context: self._end(call, context))
        return call

    def _end(self, call: _Call, context: Any) -> None:
        """Called by gRPC when the last byte is out, the caller has left or the call was refused."""
        seconds = time.perf_counter() - call.began_s
        code, reason = _outcome(call, context)
        self._metrics.rpcs.labels(call.service, call.method, code, reason).inc()
        self._metrics.rpc_seconds.labels(call.service, call.method).observe(seconds)
        self._metrics.rpcs_in_flight.labels(call.service, call.method).dec()
        if call.is_stream:
            self._metrics.streams_open.labels(call.service, call.method).dec()
        call.opened.set_attributes({"rpc.grpc.status_code": code, "personae.call": call.here.ids["call"]})
        if code != "OK":
            call.opened.set_status(Status(StatusCode.ERROR, reason or code))
        call.opened.end()
        # gRPC calls this outside of the call's context.
        fields = {**call.here.ids, "code": code, "reason": reason, "seconds": round(seconds, 6)}
        level = logging.WARNING if code in _OURS_TO_BLAME else logging.INFO
        _logger.log(level, "%s: %s", call.method, code, extra={FIELDS: fields})


def _wrap_unary(behaviour: Behaviour, begin: _Begin) -> Behaviour:
    async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        call = begin(context)
        answer = behaviour(request, context)
        answer = await answer if inspect.isawaitable(answer) else answer
        call.has_answered = True
        return answer

    return handle


def _wrap_stream(behaviour: Behaviour, begin: _Begin) -> Behaviour:
    async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        call = begin(context)
        # Closed with the call, so that what the handler holds is freed at once.
        async with aclosing(behaviour(request, context)) as answers:
            async for answer in answers:
                yield answer
        call.has_answered = True

    return handle


def _server_span(here: Here, service: str, method: str) -> Span:
    if here.tracer is None:
        return INVALID_SPAN
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    return here.tracer.start_span(f"{service}/{method}", here.parent, SpanKind.SERVER, attributes)


def _outcome(call: _Call, context: Any) -> tuple[str, str]:
    """Status code and reason of a call that has ended."""
    # A number or a StatusCode, whichever it was set as.
    found = context.code() or grpc.StatusCode.OK
    code = found if isinstance(found, grpc.StatusCode) else _CODES.get(found, grpc.StatusCode.UNKNOWN)
    if code is grpc.StatusCode.OK and not call.has_answered:
        # Nobody set a status: the task was cancelled, by the caller or by the deadline.
        time_left_s = context.time_remaining()
        late = time_left_s is not None and time_left_s <= 0
        code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
    return code.name, _reason(context.trailing_metadata())


def _reason(metadata: Iterable[tuple[str, Any]]) -> str:
    """Of google.rpc.ErrorInfo; empty where a status says none. Reasons are constants of our code: there are few."""
    for key, value in metadata:
        if key == _DETAILS:
            status, info = status_pb2.Status(), error_details_pb2.ErrorInfo()
            status.ParseFromString(value)
            return next((str(info.reason) for detail in status.details if detail.Unpack(info)), "")
    return ""


def _text_of(metadata: Iterable[tuple[str, Any]] | None) -> Mapping[str, str]:
    return {key: value for key, value in metadata or () if isinstance(value, str)}
