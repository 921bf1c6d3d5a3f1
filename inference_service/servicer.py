"""The rpcs: translate, call, translate.

Errors pass through to the interceptor; rpcs that are not built yet are the base class's.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from inference_service import wire
from inference_service.studio import Studio
from personae.v1 import inference_pb2 as pb
from personae.v1.inference_pb2_grpc import InferenceServiceServicer


class InferenceServicer(InferenceServiceServicer):
    """See inference.proto."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> AsyncIterator[pb.GenerateResponse]:
        async with aclosing(self._studio.generate(wire.to_draft(request), context.time_remaining())) as events:
            async for event in events:
                yield wire.from_event(event)

    async def GetServingInfo(self, request: pb.GetServingInfoRequest, context: Any) -> pb.GetServingInfoResponse:
        return wire.from_serving(self._studio.served.values(), self._studio.admission)
