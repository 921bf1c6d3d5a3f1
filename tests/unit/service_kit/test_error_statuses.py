"""The one error table, over a real port: unary and streaming calls get the same status and details."""

import asyncio
import errno
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import message
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_status import rpc_status

from service_kit.document import UnreadableDocument
from service_kit.error_status import ErrorInterceptor
from service_kit.errors import (
    DataLost,
    DeadlineTooShort,
    InvalidRequest,
    NotPermitted,
    PreconditionUnmet,
    ResourceExists,
    ResourceMissing,
    SequenceOutOfRange,
    ServiceUnavailable,
    TryLater,
    Unauthenticated,
    Violation,
    Violations,
    WriteConflict,
)
from service_kit.store import StoreForbidden, StoreUnavailable

_PATIENCE_S = 10.0
Code = grpc.StatusCode

_TABLE = [
    (InvalidRequest([Violation("a", "b")]), Code.INVALID_ARGUMENT, "INVALID_REQUEST", error_details_pb2.BadRequest),
    (Unauthenticated("TOKEN_MISSING", "x"), Code.UNAUTHENTICATED, "TOKEN_MISSING", None),
    (NotPermitted("x"), Code.PERMISSION_DENIED, "NOT_PERMITTED", None),
    (ResourceMissing("Adapter", "x"), Code.NOT_FOUND, "NOT_FOUND", error_details_pb2.ResourceInfo),
    (ResourceExists("Adapter", "x", "hint"), Code.ALREADY_EXISTS, "ALREADY_EXISTS", error_details_pb2.ResourceInfo),
    (ResourceExists("T", "x", "y", "REUSED"), Code.ALREADY_EXISTS, "REUSED", error_details_pb2.ResourceInfo),
    (PreconditionUnmet("WHY", "x", "y"), Code.FAILED_PRECONDITION, "WHY", error_details_pb2.PreconditionFailure),
    (SequenceOutOfRange("after", 9, 1, 5), Code.OUT_OF_RANGE, "OUT_OF_RANGE", error_details_pb2.BadRequest),
    (TryLater("QUEUE_FULL", "x", 1.5), Code.RESOURCE_EXHAUSTED, "QUEUE_FULL", error_details_pb2.RetryInfo),
    (DeadlineTooShort("x", None), Code.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT", None),
    (DeadlineTooShort("x", 1.5), Code.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT", error_details_pb2.RetryInfo),
    (ServiceUnavailable("DRAINING", "x", 1.5), Code.UNAVAILABLE, "DRAINING", error_details_pb2.RetryInfo),
    (StoreUnavailable("secret-host:9000"), Code.UNAVAILABLE, "STORE_UNAVAILABLE", error_details_pb2.RetryInfo),
    (StoreForbidden("secret-bucket"), Code.INTERNAL, "STORE_FORBIDDEN", None),
    (OSError(errno.ENOSPC, "secret"), Code.RESOURCE_EXHAUSTED, "DISK_FULL", error_details_pb2.RetryInfo),
    (OSError(errno.EDQUOT, "secret"), Code.RESOURCE_EXHAUSTED, "DISK_FULL", error_details_pb2.RetryInfo),
    (OSError(errno.EACCES, "secret"), Code.INTERNAL, "INTERNAL", None),
    (WriteConflict("x"), Code.ABORTED, "WRITE_CONFLICT", None),
    (DataLost("x"), Code.DATA_LOSS, "DATA_LOST", None),
    (UnreadableDocument("secret"), Code.DATA_LOSS, "DATA_LOST", None),
    (ValueError("secret"), Code.INTERNAL, "INTERNAL", None),
]


def _failing(error: Exception) -> grpc.GenericRpcHandler:
    async def unary(request: bytes, context: Any) -> bytes:
        raise error

    async def at_once(request: bytes, context: Any) -> AsyncIterator[bytes]:
        raise error
        yield b""

    async def after_one(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        raise error

    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "AtOnce": grpc.unary_stream_rpc_method_handler(at_once),
        "AfterOne": grpc.unary_stream_rpc_method_handler(after_one),
    }
    return grpc.method_handlers_generic_handler("test.Failing", handlers)


def _failures(error: Exception) -> dict[str, grpc.aio.AioRpcError]:
    """What callers of each kind of rpc see of an error."""

    async def run() -> dict[str, grpc.aio.AioRpcError]:
        server = grpc.aio.server(interceptors=[ErrorInterceptor()])
        server.add_generic_rpc_handlers((_failing(error),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        seen = {}
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/test.Failing/Unary")(b"", timeout=_PATIENCE_S)
            seen["Unary"] = caught.value
            for name in ("AtOnce", "AfterOne"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    async for _ in channel.unary_stream(f"/test.Failing/{name}")(b"", timeout=_PATIENCE_S):
                        pass
                seen[name] = caught.value
        await server.stop(0)
        return seen

    return asyncio.run(run())


@pytest.mark.parametrize(("error", "code", "reason", "detail"), _TABLE, ids=lambda value: type(value).__name__)
def test_every_error_has_its_status_in_every_kind_of_call(
    error: Exception, code: grpc.StatusCode, reason: str, detail: type[message.Message] | None
) -> None:
    for seen in _failures(error).values():
        assert seen.code() == code
        assert "secret" not in (seen.details() or "")
        status = rpc_status.from_call(seen)
        assert status is not None
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        assert (info.reason, info.domain) == (reason, "personae")
        assert len(status.details) == (1 if detail is None else 2)
        if detail is not None:
            assert status.details[1].Is(detail.DESCRIPTOR)


@pytest.mark.parametrize(
    "error",
    [
        StoreForbidden("models: AccessDenied"),
        OSError(errno.ENOSPC, "on /scratch"),
        UnreadableDocument("AdapterManifest: written by a newer release"),
    ],
)
def test_what_the_operator_must_mend_is_in_the_log(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    _failures(error)
    assert str(error) in caplog.text


def test_retry_delays_are_those_of_the_error() -> None:
    status = rpc_status.from_call(_failures(TryLater("QUEUE_FULL", "x", 1.5))["Unary"])
    assert status is not None
    retry = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1500


def test_a_quota_that_is_used_up_is_named_beside_the_time_to_come_back() -> None:
    error = TryLater("PROJECT_TRAININGS", "3 trainings; 3 are allowed", 30.0, quota_of="projects/p")
    for seen in _failures(error).values():
        status = rpc_status.from_call(seen)
        assert status is not None
        retry, quota = error_details_pb2.RetryInfo(), error_details_pb2.QuotaFailure()
        assert status.details[1].Unpack(retry)
        assert status.details[2].Unpack(quota)
        assert (retry.retry_delay.seconds, len(status.details)) == (30, 3)
        assert [(one.subject, one.description) for one in quota.violations] == [("projects/p", str(error))]


def test_grpcs_own_retries_are_told_the_same_time() -> None:
    for error, pushback in ((TryLater("QUEUE_FULL", "x", 1.5), "1500"), (DeadlineTooShort("x", None), None)):
        for seen in _failures(error).values():
            assert dict(seen.trailing_metadata() or ()).get("grpc-retry-pushback-ms") == pushback


def test_texts_of_any_length_and_script_fit_into_a_status() -> None:
    long = "\N{PILE OF POO}" * 20_000
    violations = [Violation(f"field[{index}]", "wrong") for index in range(5_000)]
    errors = {
        Code.FAILED_PRECONDITION: PreconditionUnmet("WHY", "x", long),
        Code.INVALID_ARGUMENT: InvalidRequest(violations),
        Code.DATA_LOSS: DataLost(long),
    }
    for code, error in errors.items():
        assert {seen.code() for seen in _failures(error).values()} == {code}


def test_the_health_watch_works_behind_the_interceptor() -> None:
    async def run() -> None:
        health = HealthServicer()
        server = grpc.aio.server(interceptors=[ErrorInterceptor()])
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        await health.set("x", health_pb2.HealthCheckResponse.SERVING)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest(service="x"), timeout=_PATIENCE_S)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            await health.set("x", health_pb2.HealthCheckResponse.NOT_SERVING)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Check(health_pb2.HealthCheckRequest(service="y"), timeout=_PATIENCE_S)
            assert caught.value.code() == Code.NOT_FOUND
            watch.cancel()
        await server.stop(0)

    asyncio.run(run())


def test_a_cancelled_stream_closes_its_handler() -> None:
    async def run() -> None:
        closed = asyncio.Event()

        async def endless(request: bytes, context: Any) -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 100_000
            finally:
                closed.set()

        server = grpc.aio.server(interceptors=[ErrorInterceptor()])
        handlers = {"Endless": grpc.unary_stream_rpc_method_handler(endless)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Endless", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_stream("/test.Endless/Endless")(b"")
            await call.read()
            call.cancel()
            async with asyncio.timeout(_PATIENCE_S):
                await closed.wait()
        await server.stop(0)

    asyncio.run(run())


def test_violations_are_collected_and_shown_short() -> None:
    violations = Violations()
    violations.raise_if_any()
    violations.check(True, "fine", 1, "1")
    violations.check(False, "a", "x" * 1_000, "less")
    violations.add("b", "is wrong")
    with pytest.raises(InvalidRequest) as caught:
        violations.raise_if_any()
    assert [violation.field for violation in caught.value.violations] == ["a", "b"]
    assert len(caught.value.violations[0].description) < 120
