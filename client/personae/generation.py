"""One generation: its images as they finish, and after a cut the missing ones only.

A stream of images cannot be resumed, but an image depends on nothing but prompt, seed and settings: asking for the
missing (prompt, seed) pairs gives the very images that the cut took away.
"""

from collections.abc import Callable, Iterator

from personae import requests, wire
from personae.connection import Connection, read
from personae.errors import Unavailable
from personae.resources import GenerationProgress, Image
from personae.v1 import inference_pb2
from personae.v1.inference_pb2_grpc import InferenceServiceStub

OnProgress = Callable[[GenerationProgress], None]


class Generation:
    """The images of one request: which have come, and which are missing."""

    def __init__(
        self,
        connection: Connection[InferenceServiceStub],
        request: inference_pb2.GenerateRequest,
        on_progress: OnProgress | None,
    ) -> None:
        self._connection = connection
        self._request = request
        self._on_progress = on_progress
        self._effective: inference_pb2.GenerateRequest | None = None
        self._missing: dict[int, tuple[int, int]] = {}  # index -> (prompt index, seed), in the order of the indices
        self._total = 0

    def images(self) -> Iterator[Image]:
        """Each image as it arrives, in any order."""
        connection, patience = self._connection, self._connection.patience
        outage = connection.outage(patience.unanswered_s)
        while True:
            request = self._rest()
            # The answer counts its indices over what was asked for this time.
            places = list(self._missing)
            try:
                for answer in read(connection.stub.Generate(request, timeout=patience.generation_s)):
                    kind = answer.WhichOneof("kind")
                    if kind == "accepted" and self._effective is None:
                        self._accept(answer.accepted.effective_request)
                        places = list(self._missing)
                        outage = connection.outage(patience.outage_s)
                    elif kind == "image" and places[answer.image.index] in self._missing:
                        outage.over()
                        yield self._arrived(places[answer.image.index], answer.image)
                        self._report()
                    elif kind == "queued":
                        self._report(images_ahead=answer.queued.images_ahead)
                    elif kind == "progress":
                        self._report(
                            completed_steps=answer.progress.completed_steps, total_steps=answer.progress.total_steps
                        )
                if not self._complete():
                    raise Unavailable("the server ended the stream before every image had come")
                return
            except Unavailable as cut:
                if self._complete():
                    return
                outage.wait(cut)

    def _complete(self) -> bool:
        return self._effective is not None and not self._missing

    def _rest(self) -> inference_pb2.GenerateRequest:
        if self._effective is None:
            return self._request
        return requests.rest_of(self._effective, list(self._missing.values()))

    def _accept(self, effective: inference_pb2.GenerateRequest) -> None:
        self._effective = effective
        pairs = [(place, seed) for place, prompt in enumerate(effective.prompts) for seed in prompt.seeds]
        self._missing = dict(enumerate(pairs))
        self._total = len(pairs)

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
