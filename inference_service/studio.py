"""The life of a generation: check, admit, fetch adapters, denoise, encode, tell.

Its one rule: everything that can be wrong with a request is said before `Accepted`, and leaving the stream at any point
frees all it holds.
"""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from base_models.catalog import BaseModelEntry
from inference_service.adapters import Adapters
from inference_service.admission import Admission, Demand
from inference_service.cost import image_cost
from inference_service.engine import AppliedAdapter, Engine, Picture
from inference_service.events import Accepted, Done, Event, FinishedImage, Queued
from inference_service.first_look import least_demand
from inference_service.generation import GenerationDraft, GenerationRequest, WantedAdapter, check, project_of
from inference_service.image_file import Provenance, encode, media_type
from service_kit.errors import ServiceError
from service_kit.names import MalformedName, parse_adapter

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
        clock: Callable[[], float],
    ) -> None:
        self.served = served
        self.admission = admission
        self._adapters = adapters
        self._clock = clock

    async def generate(self, draft: GenerationDraft, time_left_s: float | None) -> AsyncGenerator[Event, Any]:
        """Yield the events of one generation. Raises a ServiceError instead of Accepted, hardly ever later.

        time_left_s: until the caller's deadline, from now; None where there is none.
        """
        deadline_s = None if time_left_s is None else self._clock() + time_left_s
        with self.admission.attend(project_of(draft)):
            if demand := self._least_demand(draft):
                self.admission.consider(demand, time_left_s)
            async with aclosing(self._admitted(draft, deadline_s)) as events:
                async for event in events:
                    yield event

    async def _admitted(self, draft: GenerationDraft, deadline_s: float | None) -> AsyncGenerator[Event, Any]:
        base = await asyncio.to_thread(self._base_model_of, draft)
        request = await asyncio.to_thread(
            check,
            draft,
            base.entry,
            tuple(self.served),
            base.count_tokens,
            lambda: secrets.randbelow(_DRAWN_SEEDS),
            self.admission.limits.project_cost,
        )
        time_left_s = None if deadline_s is None else deadline_s - self._clock()
        with self.admission.admit(_demand(request, base.entry), time_left_s) as ticket:
            adapters = await asyncio.to_thread(self._fetch, request.adapters, base)
            request = replace(
                request, adapters=tuple(WantedAdapter(adapter.name, adapter.weight) for adapter in adapters)
            )
            accepted_s = self._clock()
            yield Accepted(secrets.token_hex(8), request)
            if ticket.images_ahead:
                yield Queued(ticket.images_ahead)
            begun_s, told_s = None, float("-inf")
            async with aclosing(base.engine.generate(request, adapters)) as results:
                async for result in results:
                    now = self._clock()
                    begun_s = now if begun_s is None else begun_s
                    if isinstance(result, Picture):
                        ticket.finish(result.task.index)
                        provenance = Provenance(request, result.task, base.digest, adapters)
                        yield await asyncio.to_thread(_finish, result, provenance)
                    else:
                        ticket.progress(result.indices, result.completed_steps, result.total_steps)
                        if now - told_s >= _PROGRESS_EVERY_S:
                            told_s = now
                            yield result
            ended_s = self._clock()
            begun_s = ended_s if begun_s is None else begun_s
            yield Done(len(request.tasks), queue_s=begun_s - accepted_s, generation_s=ended_s - begun_s)

    def _base_model_of(self, draft: GenerationDraft) -> ServedBaseModel:
        """The one that the draft names, else its first adapter's, else the default; what is wrong is said by others."""
        name = draft.base_model
        if not name and draft.adapters:
            try:
                name = self._adapters.resolve(parse_adapter(draft.adapters[0].adapter)).base_model
            except (MalformedName, ServiceError):
                name = ""
        return self.served.get(name) or next(iter(self.served.values()))

    def _least_demand(self, draft: GenerationDraft) -> Demand | None:
        """Which base model an adapter belongs to is not known before its manifest has been read."""
        named = self.served.get(draft.base_model)
        bases = [named] if named else list(self.served.values())[: None if draft.adapters else 1]
        return least_demand(draft, [base.entry for base in bases], self.admission.limits.project_cost)

    def _fetch(self, wanted: tuple[WantedAdapter, ...], base: ServedBaseModel) -> tuple[AppliedAdapter, ...]:
        return tuple(self._adapters.apply(adapter, base.entry.name, base.digest, base.engine) for adapter in wanted)


def _demand(request: GenerationRequest, base_model: BaseModelEntry) -> Demand:
    cost = image_cost(request.width, request.height, request.steps, request.guidance_scale, base_model.default_size)
    return Demand(request.project, len(request.tasks), cost)


def _finish(picture: Picture, provenance: Provenance) -> FinishedImage:
    file_format = provenance.request.file_format
    content = encode(picture.pixels_HWC, file_format, provenance)
    height, width = picture.pixels_HWC.shape[:2]
    digest = hashlib.sha256(content).hexdigest()
    return FinishedImage(picture.task, content, media_type(file_format), width, height, digest)
