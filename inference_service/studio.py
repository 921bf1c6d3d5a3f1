"""The life of a generation: check, admit, fetch adapters, denoise, finish, tell.

Its one rule: everything that can be wrong with a request is said before `Accepted`, and leaving the stream at any point
frees all it holds.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from base_models.catalog import BaseModelEntry
from inference_service.adapters import Adapters
from inference_service.admission import Admission, Demand
from inference_service.cost import image_cost
from inference_service.deletion import until_deleted
from inference_service.engine import AppliedAdapter, Engine, Preview
from inference_service.events import Accepted, Done, Event, FinishedImage, PreviewFile, Progress, Queued
from inference_service.finishing import Finishing, Origin
from inference_service.first_look import least_demand
from inference_service.generation import GenerationDraft, GenerationRequest, WantedAdapter, project_of
from inference_service.generation_check import check
from inference_service.image_file import encode_preview
from inference_service.outbox import finished
from inference_service.picture_decoding import Decode
from inference_service.start_pictures import ReadImage
from service_kit.call_context import identify, lasting, span
from service_kit.errors import ServiceError
from service_kit.names import MalformedName, ProjectName, parse_adapter

_PROGRESS_EVERY_S = 0.25
# Short enough to be typed again by people; the contract allows 63 bits.
_DRAWN_SEEDS = 2**32


@dataclass(frozen=True)
class ServedBaseModel:
    """A base model that is loaded here."""

    entry: BaseModelEntry
    digest: str
    count_tokens: Callable[[str], int]
    engine: Engine


class Studio:
    """Makes generations. `served` is by name; the first is the default."""

    def __init__(
        self,
        served: Mapping[str, ServedBaseModel],
        adapters: Adapters,
        admission: Admission,
        finishing: Finishing,
        clock: Callable[[], float],
        read_image: ReadImage,
        decode: Decode,
    ) -> None:
        self.served = served
        self.admission = admission
        self._adapters = adapters
        self._finishing = finishing
        self._clock = clock
        self._read_image = read_image
        self._decode = decode

    async def generate(self, draft: GenerationDraft, time_left_s: float | None) -> AsyncGenerator[Event, Any]:
        """Yield the events of one generation. Raises a ServiceError instead of Accepted, hardly ever later.

        time_left_s: until the caller's deadline, from now; None where there is none.
        """
        deadline_s = None if time_left_s is None else self._clock() + time_left_s
        with self.admission.attend(project_of(draft)):
            with span("admit"):
                if demand := self._least_demand(draft):
                    self.admission.consider(demand, time_left_s)
            async with aclosing(self._admitted(draft, deadline_s)) as events:
                async for event in events:
                    yield event

    async def _admitted(self, draft: GenerationDraft, deadline_s: float | None) -> AsyncGenerator[Event, Any]:
        identify(project=project_of(draft))
        with span("check"):
            base = await self._base_model_of(draft)
            request = await asyncio.to_thread(
                check,
                draft,
                base.entry,
                tuple(self.served),
                base.count_tokens,
                lambda: secrets.randbelow(_DRAWN_SEEDS),
                self.admission.limits.project_cost,
                self._read_image,
                self._decode,
            )
        time_left_s = None if deadline_s is None else deadline_s - self._clock()
        with self.admission.admit(_demand(request, base.entry), time_left_s) as ticket:
            adapters = await self._fetch(request.adapters, base)
            request = replace(
                request, adapters=tuple(WantedAdapter(adapter.name, adapter.weight) for adapter in adapters)
            )
            accepted_s = self._clock()
            origin = Origin(secrets.token_hex(8), ProjectName(request.project), request, base.digest, adapters)
            identify(generation=origin.generation)
            yield Accepted(origin.generation, request)
            if ticket.images_ahead:
                yield Queued(ticket.images_ahead)
            begun_s, told_s = None, float("-inf")
            names = [adapter.name for adapter in adapters]
            denoising = until_deleted(base.engine.generate(request, adapters), names, self._adapters.is_deleted)
            results = finished(_timed(denoising), lambda picture: self._finishing.finish(picture, origin))
            async with aclosing(results):
                async for result in results:
                    now = self._clock()
                    begun_s = now if begun_s is None else begun_s
                    match result:
                        case FinishedImage():
                            ticket.finish(result.task.index)
                            # gRPC comes back when it has taken the message: the pace of who reads it.
                            with lasting("send image", index=result.task.index):
                                yield result
                        case Preview(task, completed_steps, pixels_HWC):
                            content = await asyncio.to_thread(encode_preview, pixels_HWC)
                            yield PreviewFile(task, completed_steps, content)
                        case Progress(indices, completed_steps, total_steps):
                            ticket.progress(indices, completed_steps, total_steps)
                            if now - told_s >= _PROGRESS_EVERY_S:
                                told_s = now
                                yield result
            ended_s = self._clock()
            begun_s = ended_s if begun_s is None else begun_s
            yield Done(len(request.tasks), queue_s=begun_s - accepted_s, generation_s=ended_s - begun_s)

    async def _base_model_of(self, draft: GenerationDraft) -> ServedBaseModel:
        """The one that the draft names, else its first adapter's, else the default; what is wrong is said by others."""
        name = draft.base_model
        if not name and draft.adapters:
            try:
                name = (await self._adapters.resolve(parse_adapter(draft.adapters[0].adapter))).base_model
            except (MalformedName, ServiceError):
                name = ""
        return self.served.get(name) or next(iter(self.served.values()))

    def _least_demand(self, draft: GenerationDraft) -> Demand | None:
        """Which base model an adapter belongs to is not known before its manifest has been read."""
        named = self.served.get(draft.base_model)
        bases = [named] if named else list(self.served.values())[: None if draft.adapters else 1]
        return least_demand(draft, [base.entry for base in bases], self.admission.limits.project_cost)

    async def _fetch(self, wanted: tuple[WantedAdapter, ...], base: ServedBaseModel) -> tuple[AppliedAdapter, ...]:
        """All of them at the same time. The steps of other requests go on meanwhile."""
        applied = (self._adapters.apply(adapter, base.entry.name, base.digest, base.engine) for adapter in wanted)
        return tuple(await asyncio.gather(*applied))


async def _timed(results: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    """The same, with a span from the engine's taking it on to the last picture's leaving it."""
    with lasting("denoise"):
        async with aclosing(results):
            async for result in results:
                yield result


def _demand(request: GenerationRequest, base_model: BaseModelEntry) -> Demand:
    cost = image_cost(
        request.width,
        request.height,
        request.steps_run,
        base_model.is_guided(request.guidance_scale),
        base_model.default_size,
    )
    return Demand(request.project, len(request.tasks), cost)
