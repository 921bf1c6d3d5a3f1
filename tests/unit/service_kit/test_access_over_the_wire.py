"""The check of callers over a real port: every kind of rpc, refusals before the handler, open health, no token told."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from service_kit import access_interceptor
from service_kit.access_table import Rule
from service_kit.error_status import ErrorInterceptor
from service_kit.identity import Role
from service_kit.lingering import LingerInterceptor
from service_kit.request_names import Named
from tests.identities import bearer, interceptor, listed, token_of

PATIENCE_S = 10.0
Code = grpc.StatusCode
KINDS = ["UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream"]


class Handlers:
    """One handler of each kind; keeps what reached it."""

    def __init__(self) -> None:
        self.reached: list[bytes] = []

    async def unary(self, request: bytes, context: Any) -> bytes:
        self.reached.append(request)
        return b"answer"

    async def stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        self.reached.append(request)
        yield b"answer"

    async def stream_unary(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        async for request in requests:
            self.reached.append(request)
        return b"answer"

    async def stream_stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            self.reached.append(request)
            yield b"answer"

    def generic(self) -> grpc.GenericRpcHandler:
        methods = {
            "UnaryUnary": grpc.unary_unary_rpc_method_handler(self.unary),
            "UnaryStream": grpc.unary_stream_rpc_method_handler(self.stream),
            "StreamUnary": grpc.stream_unary_rpc_method_handler(self.stream_unary),
            "StreamStream": grpc.stream_stream_rpc_method_handler(self.stream_stream),
            "NotInTheTable": grpc.unary_unary_rpc_method_handler(self.unary),
        }
        return grpc.method_handlers_generic_handler("test.Kinds", methods)


def _names(message: bytes) -> list[Named]:
    """A message `x/y` names resource y of project x."""
    project, _, name = message.decode().partition("/")
    return [Named(project, "Thing", f"projects/{project}/things/{name}")]


@pytest.fixture(autouse=True)
def rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table, with rules for the handlers above, which take trainers."""
    ours = {f"/test.Kinds/{kind}": Rule(frozenset({Role.TRAINER}), _names) for kind in KINDS}
    monkeypatch.setattr(access_interceptor, "RULES", access_interceptor.RULES | ours)


@pytest.fixture
def serve(tmp_path: Path) -> Callable[[Callable[[Any], Awaitable[None]]], None]:
    """Runs a scenario against a server with these handlers, health and reflection, and three identities."""
    entries = (
        listed("shop", ["trainer"], ["shop"]),
        listed("looker", ["viewer"], ["shop"]),
        listed("boss", ["trainer"], ["*"]),
    )

    def run(scenario: Callable[[Any], Awaitable[None]]) -> None:
        async def serving() -> None:
            handlers, health = Handlers(), HealthServicer()
            checking = interceptor(tmp_path / "tokens.json", *entries)
            server = grpc.aio.server(interceptors=[ErrorInterceptor(), LingerInterceptor(), checking])
            server.add_generic_rpc_handlers((handlers.generic(),))
            health_pb2_grpc.add_HealthServicer_to_server(health, server)
            reflection.enable_server_reflection([reflection.SERVICE_NAME], server)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            await health.set("", health_pb2.HealthCheckResponse.SERVING)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await scenario(SimpleNamespace(channel=channel, handlers=handlers))
            await server.stop(0)

        asyncio.run(asyncio.wait_for(serving(), 3 * PATIENCE_S))

    return run


async def call(serving: Any, kind: str, *messages: bytes, metadata: Any = ()) -> list[bytes]:
    """All answers to a call with these messages."""
    channel, options = serving.channel, {"timeout": PATIENCE_S, "metadata": metadata}

    async def sending() -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    method = f"/test.Kinds/{kind}"
    match kind:
        case "UnaryStream":
            return [answer async for answer in channel.unary_stream(method)(messages[0], **options)]
        case "StreamUnary":
            return [await channel.stream_unary(method)(sending(), **options)]
        case "StreamStream":
            return [answer async for answer in channel.stream_stream(method)(sending(), **options)]
    return [await channel.unary_unary(method)(messages[0], **options)]


async def refusal(serving: Any, kind: str, *messages: bytes, metadata: Any = ()) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(serving, kind, *messages, metadata=metadata)
    info, status = error_details_pb2.ErrorInfo(), rpc_status.from_call(caught.value)
    assert status is not None
    assert status.details[0].Unpack(info)
    return caught.value.code(), info.reason


def test_every_kind_of_rpc_is_open_to_the_right_caller_alone(serve: Any) -> None:
    async def scenario(serving: Any) -> None:
        for kind in KINDS:
            assert await call(serving, kind, b"shop/1", metadata=bearer("shop")) == [b"answer"]
            assert serving.handlers.reached == [b"shop/1"]
            serving.handlers.reached.clear()
            for metadata, expected in (
                ((), (Code.UNAUTHENTICATED, "TOKEN_MISSING")),
                ((("authorization", "Bearer wrong"),), (Code.UNAUTHENTICATED, "TOKEN_INVALID")),
                (bearer("looker"), (Code.PERMISSION_DENIED, "NOT_PERMITTED")),
            ):
                assert await refusal(serving, kind, b"shop/1", metadata=metadata) == expected
            assert await refusal(serving, kind, b"other/1", metadata=bearer("shop")) == (Code.NOT_FOUND, "NOT_FOUND")
            # Nothing of a refused call reaches a handler.
            assert serving.handlers.reached == []

    serve(scenario)


def test_a_foreign_name_later_in_a_stream_is_refused_too(serve: Any) -> None:
    async def scenario(serving: Any) -> None:
        for kind in ("StreamUnary", "StreamStream"):
            refused = await refusal(serving, kind, b"shop/1", b"other/1", b"shop/2", metadata=bearer("shop"))
            assert refused == (Code.NOT_FOUND, "NOT_FOUND")
            assert serving.handlers.reached == [b"shop/1"]
            serving.handlers.reached.clear()

    serve(scenario)


def test_what_is_not_in_the_table_is_refused_to_everybody(serve: Any) -> None:
    async def scenario(serving: Any) -> None:
        refused = await refusal(serving, "NotInTheTable", b"shop/1", metadata=bearer("boss"))
        assert refused == (Code.PERMISSION_DENIED, "NOT_PERMITTED")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(serving, "NotThereAtAll", b"", metadata=bearer("boss"))
        assert caught.value.code() == Code.UNIMPLEMENTED

    serve(scenario)


def test_health_is_open_and_reflection_takes_an_identity(serve: Any) -> None:
    async def scenario(serving: Any) -> None:
        health = health_pb2_grpc.HealthStub(serving.channel)
        serving_now = health_pb2.HealthCheckResponse.SERVING
        assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)).status == serving_now
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        assert (await watch.read()).status == serving_now
        watch.cancel()

        async def asking() -> AsyncIterator[Any]:
            yield reflection_pb2.ServerReflectionRequest(list_services="")

        stub = reflection_pb2_grpc.ServerReflectionStub(serving.channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [answer async for answer in stub.ServerReflectionInfo(asking(), timeout=PATIENCE_S)]
        assert caught.value.code() == Code.UNAUTHENTICATED
        known = stub.ServerReflectionInfo(asking(), timeout=PATIENCE_S, metadata=bearer("looker"))
        (answer,) = [answer async for answer in known]
        assert answer.list_services_response.service

    serve(scenario)


def test_no_log_and_no_error_tells_a_token(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Of a call that passes, of one that fails in each way, and of a token that is nearly right."""
    nearly, seen = token_of("shop")[:-1], []

    async def scenario(serving: Any) -> None:
        await call(serving, "UnaryUnary", b"shop/1", metadata=bearer("shop"))
        for metadata in (bearer("shop"), bearer("looker"), (("authorization", f"Bearer {nearly}"),)):
            for message in (b"other/1", b"\xff"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(serving, "UnaryUnary", message, metadata=metadata)
                seen.append(f"{caught.value!r} {caught.value.trailing_metadata()}")

    with caplog.at_level(logging.DEBUG):
        serve(scenario)
    assert "refused /test.Kinds/UnaryUnary" in caplog.text
    told = caplog.text + "".join(seen)
    for name in ("shop", "looker"):
        assert token_of(name)[:-1] not in told
    assert "UnicodeDecodeError" in caplog.text
