"""A gRPC method handler, whichever of the four kinds it is: what it does, and the same kind doing something else."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc

# In quotes: at run time gRPC's class takes no parameters.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]]"
Behaviour = Callable[..., Any]
"""Takes a request, or a stream of them, and a context; returns an answer, an awaitable of one, or a stream of them."""

_BUILD: "dict[tuple[bool, bool], Callable[..., Handler]]" = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def behaviour_of(handler: Handler) -> Behaviour:
    """What the handler does."""
    found: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    return found  # type: ignore[no-any-return]


def doing(handler: Handler, behaviour: Behaviour) -> Handler:
    """A handler of the same kind that does something else."""
    return _built(handler, behaviour, handler.request_deserializer)


def doing_with_bytes(handler: Handler, behaviour: Behaviour) -> Handler:
    """As `doing`, where the behaviour takes requests as they came, not parsed."""
    return _built(handler, behaviour, None)


def _built(handler: Handler, behaviour: Behaviour, parse: Any) -> Handler:
    build = _BUILD[bool(handler.request_streaming), bool(handler.response_streaming)]
    return build(behaviour, parse, handler.response_serializer)
