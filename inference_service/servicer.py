"""The rpcs: translate, call, translate.

Errors pass through to the interceptor; rpcs that are not built yet are the base class's.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from inference_service import wire
from inference_service.ledger import Ledger
from inference_service.made_images import MadeImages
from inference_service.served_adapters import ServedAdapters
from inference_service.studio import Studio
from personae.v1 import inference_pb2 as pb
from personae.v1.inference_pb2_grpc import InferenceServiceServicer


class InferenceServicer(InferenceServiceServicer):
    """See inference.proto."""

    def __init__(self, studio: Studio, served_adapters: ServedAdapters, ledger: Ledger, made: MadeImages) -> None:
        self._studio = studio
        self._served_adapters = served_adapters
        self._ledger = ledger
        self._made = made

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> AsyncIterator[pb.GenerateResponse]:
        async with aclosing(self._studio.generate(wire.to_draft(request), context.time_remaining())) as events:
            async for event in events:
                yield wire.from_event(event)

    async def GetServingInfo(self, request: pb.GetServingInfoRequest, context: Any) -> pb.GetServingInfoResponse:
        return wire.from_serving(self._studio.served.values(), self._studio.admission)

    async def ListServedAdapters(
        self, request: pb.ListServedAdaptersRequest, context: Any
    ) -> pb.ListServedAdaptersResponse:
        adapters, token = await self._served_adapters.page(request.page_size, request.page_token)
        return pb.ListServedAdaptersResponse(adapters=map(wire.served_adapter, adapters), next_page_token=token)

    async def PreloadAdapter(self, request: pb.PreloadAdapterRequest, context: Any) -> pb.PreloadAdapterResponse:
        adapter = await self._served_adapters.preload(request.adapter, request.pinned)
        return pb.PreloadAdapterResponse(adapter=wire.served_adapter(adapter))

    async def LookUpImage(self, request: pb.LookUpImageRequest, context: Any) -> pb.LookUpImageResponse:
        return wire.from_ledger(await asyncio.to_thread(self._ledger.look_up, request.project, request.digest))

    async def ListImages(self, request: pb.ListImagesRequest, context: Any) -> pb.ListImagesResponse:
        page = request.parent, request.page_size, request.page_token
        images, token = await asyncio.to_thread(self._made.page, *page)
        made = [wire.made_image(image, self._made.uri(image)) for image in images]
        return pb.ListImagesResponse(images=made, next_page_token=token)
