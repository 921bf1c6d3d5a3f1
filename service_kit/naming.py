"""Which resources a call is about, for its log lines: what the table of access says that its requests name."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from service_kit.access_table import RULES
from service_kit.call_context import identify
from service_kit.handlers import Continuation, Handler, behaviour_of, doing
from service_kit.request_names import Named, NamesOf

_FIELDS = {"Dataset": "dataset", "Training": "training", "Adapter": "adapter"}


class NamingInterceptor(grpc.aio.ServerInterceptor):
    """Belongs inside ErrorInterceptor, which parses the requests. The ids are those of `call_context`."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        rule = RULES.get(handler_call_details.method)
        if handler is None or rule is None:
            return handler
        behaviour, names_of = behaviour_of(handler), rule.names_of

        def handle(request: Any, context: Any) -> Any:
            return behaviour(_noted(request, names_of), context)

        def handle_stream(requests: Any, context: Any) -> Any:
            return behaviour(_each_noted(requests, names_of), context)

        return doing(handler, handle_stream if handler.request_streaming else handle)


def _noted(request: Any, names_of: NamesOf) -> Any:
    for named in names_of(request):
        identify(project=named.project, **_field(named))
    return request


async def _each_noted(requests: AsyncIterator[Any], names_of: NamesOf) -> AsyncIterator[Any]:
    async for request in requests:
        yield _noted(request, names_of)


def _field(named: Named) -> dict[str, str]:
    return {_FIELDS[named.kind]: named.name} if named.kind in _FIELDS else {}
