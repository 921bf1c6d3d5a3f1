"""What is going on here: the ids of the present call or training, for log lines, and the span that is open, for traces.

Its one rule: it travels with the code in a context variable, into threads that copy their context and into no others.
Outside a call or a training there are no ids and no spans. Where nobody collects traces, a span costs one look-up.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context as Variables
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, replace
from functools import partial

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, Status, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()


@dataclass(frozen=True)
class Here:
    """ids: shared by all that belongs to the call, and added to as they become known. parent: of the next span."""

    ids: dict[str, str]
    tracer: Tracer | None
    parent: Context


_here: ContextVar[Here | None] = ContextVar("here", default=None)


def arrive(ids: dict[str, str], tracer: Tracer | None, carrier: Mapping[str, str]) -> Here:
    """Begin a call or a training in this context: for a task or a context that ends with it.

    carrier: W3C `traceparent` and `tracestate` (https://www.w3.org/TR/trace-context/) of whoever asked for it, if
    known; what is malformed there counts as unknown. tracer: None: nobody collects spans.
    """
    here = Here(ids, tracer, _PROPAGATOR.extract(carrier, Context()))
    _here.set(here)
    _note_trace(here)
    return here


@contextmanager
def arrived(ids: dict[str, str], tracer: Tracer | None, carrier: Mapping[str, str]) -> Iterator[None]:
    """As `arrive`, for as long as the block lasts."""
    token = _here.set(None)
    try:
        arrive(ids, tracer, carrier)
        yield
    finally:
        _here.reset(token)


def identify(**ids: str) -> None:
    """Add ids that have become known to all further log lines of the present call."""
    here = _here.get()
    if here is not None:
        here.ids.update(ids)


def present_ids() -> Mapping[str, str]:
    """Ids of the present call or training; empty outside of one."""
    here = _here.get()
    return {} if here is None else here.ids


def traceparent() -> str:
    """The open span, as whoever goes on with this work elsewhere needs it; empty where there is no trace."""
    here, carrier = _here.get(), dict[str, str]()
    if here is not None:
        _PROPAGATOR.inject(carrier, here.parent)
    return carrier.get("traceparent", "")


def begin(name: str, **attributes: str | int | float) -> Span:
    """A child of the open span that is not the parent of what follows. The caller ends it."""
    here = _here.get()
    if here is None or here.tracer is None:
        return INVALID_SPAN
    return here.tracer.start_span(name, here.parent, attributes=attributes)


@contextmanager
def span(name: str, **attributes: str | int | float) -> Iterator[None]:
    """Open a child of the open span while the block lasts; no `yield` of a generator may stand in it.

    Of an error only its type is kept: texts may hold what callers wrote.
    """
    opened, here = begin(name, **attributes), _here.get()
    if opened is INVALID_SPAN or here is None:
        yield
        return
    token = _here.set(replace(here, parent=set_span_in_context(opened, Context())))
    try:
        yield
    except BaseException as error:
        opened.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        _here.reset(token)
        opened.end()


@contextmanager
def lasting(name: str, **attributes: str | int | float) -> Iterator[None]:
    """As `span`, but not the parent of what is in the block, so that `yield`s of a generator may stand in it."""
    opened = begin(name, **attributes)
    try:
        yield
    except BaseException as error:
        opened.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        opened.end()


def make_current(opened: Span) -> None:
    """Have a span be the parent of all that follows in this context, which ends with it."""
    here = _here.get()
    if here is not None and opened is not INVALID_SPAN:
        now = replace(here, parent=set_span_in_context(opened, Context()))
        _here.set(now)
        _note_trace(now)


def beside(target: Callable[[], None]) -> Callable[[], None]:
    """For a thread that goes along with a training: its log lines bear the ids; what it does makes no spans.

    A heartbeat every five seconds is worth no span.
    """
    context = copy_context()
    context.run(_without_spans)
    return partial(_run, context, target)


def _run(context: Variables, target: Callable[[], None]) -> None:
    context.run(target)


def _without_spans() -> None:
    here = _here.get()
    if here is not None:
        _here.set(replace(here, tracer=None))


def _note_trace(here: Here) -> None:
    found = get_current_span(here.parent).get_span_context()
    if found.is_valid:
        here.ids["trace_id"] = f"{found.trace_id:032x}"
