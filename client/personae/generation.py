"""One generation: its images as they finish, and after a cut the missing ones only.

A stream of images cannot be resumed, but an image depends on nothing but prompt, seed and settings: asking for the
missing (prompt, seed) pairs gives the very images that the cut took away.
"""

from collections.abc import Callable
from typing import ClassVar

from personae import requests, routing, wire
from personae.errors import Busy, Unavailable
from personae.images import GenerationProgress, Image, Preview
from personae.patience import Outage, Patience
from personae.stream import Stream
from personae.v1 import inference_pb2

OnProgress = Callable[[GenerationProgress], None]
OnPreview = Callable[[Preview], None]


class Generation(Stream[Image]):
    """The images of one request, in any order: which have come, and which are missing."""

    rpc: ClassVar[str] = "Generate"

    def __init__(
        self,
        request: inference_pb2.GenerateRequest,
        on_progress: OnProgress | None,
        on_preview: OnPreview | None,
        patience: Patience,
    ) -> None:
        super().__init__(Outage(patience.unanswered_s, patience.first_pause_s), timeout_s=patience.generation_s)
        self._first_request = request
        self.routing_key = routing.key([used.adapter for used in request.adapters])
        self._on_progress = on_progress
        self._on_preview = on_preview
        self._patience = patience
        self._effective: inference_pb2.GenerateRequest | None = None
        self._missing: dict[int, tuple[int, int]] = {}  # index -> (prompt index, seed), in the order of the indices
        self._places: list[int] = []  # of what the open call was asked for, because its answer counts over that
        self._total = 0

    @property
    def complete(self) -> bool:
        """Whether every image has come."""
        return self._effective is not None and not self._missing

    @property
    def missing(self) -> dict[int, int] | None:
        """The seed of each image that has not come, by its index; None while nobody knows them."""
        return None if self._effective is None else {index: seed for index, (_, seed) in self._missing.items()}

    def request(self) -> inference_pb2.GenerateRequest:
        """Asks for the images that have not come."""
        if self._effective is None:
            return self._first_request
        self._places = list(self._missing)
        return requests.rest_of(self._first_request, self._effective, list(self._missing.values()))

    def take(self, message: inference_pb2.GenerateResponse) -> Image | None:
        """The image, where the message is a missing one; of all else the callbacks are told."""
        kind = message.WhichOneof("kind")
        if kind == "accepted" and self._effective is None:
            self._accept(message.accepted.effective_request)
        elif kind == "image" and self._places[message.image.index] in self._missing:
            self.outage.over()
            image = self._arrived(self._places[message.image.index], message.image)
            self._report()
            return image
        elif kind == "preview" and self._on_preview:
            preview = message.preview
            self._on_preview(Preview(self._places[preview.index], preview.completed_steps, preview.content))
        elif kind == "queued":
            self._report(images_ahead=message.queued.images_ahead)
        elif kind == "progress":
            self._report(completed_steps=message.progress.completed_steps, total_steps=message.progress.total_steps)
        return None

    def pause_s(self, cut: Unavailable | Busy, now_s: float) -> float:
        """Who was admitted once, and then cut off, waits for a full server as for one that restarts."""
        if isinstance(cut, Busy) and self._effective is not None and cut.retry_after_s is not None:
            return self.outage.pause_s(cut, now_s)
        return super().pause_s(cut, now_s)

    def ended_early(self) -> Unavailable:
        """What is missing can be asked for again."""
        return Unavailable("the server ended the stream before every image had come")

    def _accept(self, effective: inference_pb2.GenerateRequest) -> None:
        self._effective = effective
        pairs = [(place, seed) for place, prompt in enumerate(effective.prompts) for seed in prompt.seeds]
        self._missing = dict(enumerate(pairs))
        self._places = list(self._missing)
        self._total = len(pairs)
        self.outage = Outage(self._patience.outage_s, self._patience.first_pause_s)

    def _arrived(self, index: int, message: inference_pb2.GenerateResponse.Image) -> Image:
        assert self._effective is not None
        prompt_index, _ = self._missing.pop(index)
        return wire.image(
            message, index=index, prompt_index=prompt_index, prompt=self._effective.prompts[prompt_index].text
        )

    def _report(self, *, images_ahead: int = 0, completed_steps: int = 0, total_steps: int = 0) -> None:
        if self._on_progress:
            finished = self._total - len(self._missing)
            self._on_progress(GenerationProgress(finished, self._total, images_ahead, completed_steps, total_steps))
