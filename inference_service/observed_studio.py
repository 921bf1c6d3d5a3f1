"""A studio that is watched: what its generations come to, counted as their callers see it.

Its one rule: it changes nothing, neither what is asked nor what is answered.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from inference_service.admission import Admission
from inference_service.events import Done, Event, FinishedImage
from inference_service.generation import GenerationDraft
from inference_service.metrics import InferenceMetrics
from inference_service.studio import ServedBaseModel, Studio


class ObservedStudio:
    """See Studio."""

    def __init__(self, studio: Studio, metrics: InferenceMetrics) -> None:
        self._studio = studio
        self._metrics = metrics

    @property
    def served(self) -> Mapping[str, ServedBaseModel]:
        return self._studio.served

    @property
    def admission(self) -> Admission:
        return self._studio.admission

    async def generate(self, draft: GenerationDraft, time_left_s: float | None) -> AsyncGenerator[Event, Any]:
        async with aclosing(self._studio.generate(draft, time_left_s)) as events:
            async for event in events:
                match event:
                    case FinishedImage():
                        self._metrics.images.labels("filtered" if event.filtered else "made").inc()
                    case Done():
                        self._metrics.queue_seconds.observe(event.queue_s)
                        self._metrics.generation_seconds.observe(event.generation_s)
                yield event
