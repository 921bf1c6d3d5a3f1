"""Lets nobody in who may not: wraps every handler, so that it sees no request that its caller may not make.

Its one rule: a request is refused unless the table allows the method for the identity's roles, and every resource that
the request names belongs to a project of the identity. What belongs to another is missing, in the same words.
"""

import inspect
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from service_kit.access_table import OPEN, RULES, Rule
from service_kit.authentication import Authentication
from service_kit.errors import NotPermitted, ResourceMissing, Unauthenticated
from service_kit.handlers import Behaviour, Continuation, Handler, behaviour_of, doing
from service_kit.identity import Identity

_logger = logging.getLogger(__name__)


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Innermost of a server's interceptors: what it raises is mapped, and counted, by those around it."""

    def __init__(self, authentication: Authentication) -> None:
        self._authentication = authentication

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method in OPEN:
            return handler
        guarded = _Guarded(method, behaviour_of(handler), self._authentication, bool(handler.request_streaming))
        return doing(handler, guarded.answers if handler.response_streaming else guarded.answer)


class _Guarded:
    """A handler behind the table."""

    def __init__(
        self, method: str, behaviour: Behaviour, authentication: Authentication, request_streaming: bool
    ) -> None:
        self._method = method
        self._behaviour = behaviour
        self._authentication = authentication
        self._request_streaming = request_streaming

    async def answer(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        answer = self._behaviour(self._allowed(request, context), context)
        return await answer if inspect.isawaitable(answer) else answer

    async def answers(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        # Closed with the call, so that what the handler holds is freed at once.
        async with aclosing(self._behaviour(self._allowed(request, context), context)) as answers:
            async for answer in answers:
                yield answer

    def _allowed(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """The request, or its stream, each message checked before the handler has it. Raises what the check raises."""
        try:
            identity = self._authentication.identify(context.invocation_metadata() or (), context.auth_context())
            rule = _rule(self._method, identity)
        except (Unauthenticated, NotPermitted) as refusal:
            _logger.info("refused %s to %s: %s", self._method, context.peer(), refusal)
            raise
        if self._request_streaming:
            return _checked(request, rule, identity)
        check_projects(request, rule, identity)
        return request


def _rule(method: str, identity: Identity) -> Rule:
    """The rule by which an identity may call a method. Raises NotPermitted."""
    rule = RULES.get(method)
    if rule is None:
        raise NotPermitted(f"nobody may call {method}")
    rpc = method.rpartition("/")[2]
    if not rule.roles & identity.roles:
        roles = ", ".join(sorted(rule.roles))
        raise NotPermitted(f"{identity.name} may not call {rpc}; it takes one of the roles {roles}")
    if rule.needs_all_projects and identity.projects is not None:
        raise NotPermitted(
            f"{identity.name} may not call {rpc}; it tells of all projects, and takes an identity of all"
        )
    return rule


def check_projects(message: Any, rule: Rule, identity: Identity) -> None:
    """Raise ResourceMissing for the first resource of a project that is not the identity's."""
    for named in rule.names_of(message):
        if not identity.may_use(named.project):
            raise ResourceMissing(named.kind, named.name)


async def _checked(messages: AsyncIterator[Any], rule: Rule, identity: Identity) -> AsyncIterator[Any]:
    async for message in messages:
        check_projects(message, rule, identity)
        yield message
