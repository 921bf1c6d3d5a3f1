"""A service over a loopback port that is called with anything at all, and what it may answer to that."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tests.arbitrary_messages import messages

# A stream that only waits is left after so long.
_CALL_S = 3.0
_PATIENCE_S = 60.0
# Of a stream, so many messages are read before the call is left.
_READ_MESSAGES = 3
# Of the good requests of an rpc, so many are sent as they are.
_GOOD_REQUESTS = 4
_DEFECTS = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS)


class FuzzedService:
    """Serves on a thread of its own until closed.

    serving: gives a channel to the service. texts: names of what is there, which strings of requests often are.
    good: for every rpc requests that succeed; of a client stream, the messages of one call that does.
    """

    def __init__(
        self,
        service: ServiceDescriptor,
        serving: Callable[[], AbstractAsyncContextManager[grpc.aio.Channel]],
        texts: Sequence[str],
        good: Mapping[str, Sequence[Message]],
    ) -> None:
        self._service, self._texts, self._good = service, texts, good
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._serving = serving()
        self._channel = self._done(self._serving.__aenter__())

    def close(self) -> None:
        """Stop serving."""
        self._done(self._serving.__aexit__(None, None, None))
        self._done(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_S)
        self._loop.close()

    def calls(self, rpc: str) -> st.SearchStrategy[list[bytes]]:
        """What may be sent to an rpc: messages of any kind, good ones with fields changed, damaged ones, and bytes."""
        method = self._service.methods_by_name[rpc]
        good = self._good[rpc]
        anything = messages(method.input_type, self._texts)
        changed = st.tuples(st.sampled_from(good), anything).map(lambda pair: _merged(*pair))
        whole = st.one_of(st.sampled_from(good), changed, changed, anything)
        body = whole.map(lambda message: message.SerializeToString())
        cut = st.tuples(body, st.integers(0, 200)).map(lambda pair: pair[0][: pair[1]])
        one = st.one_of(body, body, body, body, cut, st.binary(max_size=100))
        if not method.client_streaming:
            return st.lists(one, min_size=1, max_size=1)
        call = [message.SerializeToString() for message in good]
        return st.tuples(st.integers(0, len(call)), st.lists(one, max_size=4)).map(
            lambda pair: [*call[: pair[0]], *pair[1], *call[pair[0] :]]
        )

    def answers_to_good(self, rpc: str) -> list[grpc.StatusCode]:
        """What the good calls of an rpc answer as they are."""
        sent = [message.SerializeToString() for message in self._good[rpc]]
        if self._service.methods_by_name[rpc].client_streaming:
            return [self.answer(rpc, sent)]
        return [self.answer(rpc, [request]) for request in sent[:_GOOD_REQUESTS]]

    def answer(self, rpc: str, requests: Sequence[bytes]) -> grpc.StatusCode:
        """What a call with these messages answers; asserts that it is not a defect, and that a refusal says why."""
        error: grpc.aio.AioRpcError | None = self._done(self._call(self._service.methods_by_name[rpc], requests))
        if error is None:
            return grpc.StatusCode.OK
        code = error.code()
        assert code not in _DEFECTS, f"{rpc}: {code.name}: {error.details()}"
        status = rpc_status.from_call(error)
        # The deadline that a call comes with is gRPC's own to keep, and so is a method that no server knows.
        if status is None:
            assert code == grpc.StatusCode.DEADLINE_EXCEEDED, f"{rpc}: {code.name}: {error.details()}"
            return code
        info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        assert status.details[0].Unpack(info)
        assert (info.domain, bool(info.reason)) == ("personae", True)
        if code == grpc.StatusCode.INVALID_ARGUMENT:
            assert status.details[1].Unpack(bad_request)
            assert all(violation.description for violation in bad_request.field_violations)
            assert len(bad_request.field_violations) >= 1
        return code

    async def _call(self, rpc: MethodDescriptor, requests: Sequence[bytes]) -> grpc.aio.AioRpcError | None:
        path = f"/{rpc.containing_service.full_name}/{rpc.name}"

        async def sent() -> AsyncIterator[bytes]:
            for request in requests:
                yield request

        try:
            if rpc.client_streaming:
                await self._channel.stream_unary(path)(sent(), timeout=_CALL_S)
            elif rpc.server_streaming:
                call = self._channel.unary_stream(path)(requests[0], timeout=_CALL_S)
                for _ in range(_READ_MESSAGES):
                    await call.read()
                call.cancel()
            else:
                await self._channel.unary_unary(path)(requests[0], timeout=_CALL_S)
        except grpc.aio.AioRpcError as error:
            return error
        return None

    def _done(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_S)


def rpcs(service: ServiceDescriptor) -> list[str]:
    """The names of a service's rpcs; last those that delete what the others need."""
    return sorted((method.name for method in service.methods), key=lambda name: name.startswith("Delete"))


def examples(most: int) -> Any:
    """So many calls, the same in every run; what is found is told as it was found."""
    return settings(
        max_examples=most,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )


def _merged(message: Message, changes: Message) -> Message:
    merged = type(message)()
    merged.CopyFrom(message)
    merged.MergeFrom(changes)
    return merged
