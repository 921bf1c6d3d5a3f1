"""From a picture's pixels to what its caller gets: checked, encoded, signed, delivered, written down.

Its one rule: each step before the next. What a checker has not passed is never encoded, and no image leaves before the
ledger knows it.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference_service.content_check import ContentCheck
from inference_service.engine import AppliedAdapter, Picture
from inference_service.events import FinishedImage
from inference_service.generation import GenerationRequest
from inference_service.image_file import Provenance, encode, media_type
from inference_service.ledger import Ledger, LedgerAdapter, Making
from inference_service.made_images import MadeImages, Source
from service_kit.call_context import span
from service_kit.made_image import MadeImageEntry
from service_kit.names import ProjectName

if TYPE_CHECKING:
    # Its libraries are loaded where images are signed, and nowhere else.
    from inference_service.content_credentials import ContentCredentials


@dataclass(frozen=True)
class Origin:
    """What the images of one generation have in common."""

    generation: str
    project: ProjectName
    request: GenerationRequest
    base_model_digest: str
    adapters: tuple[AppliedAdapter, ...]

    @property
    def sources(self) -> tuple[Source, ...]:
        """What the images are made of, and whose deletion takes them along."""
        start = self.request.start
        pictures = (start.image.dataset,) if start is not None and start.image is not None else ()
        return (*(adapter.name for adapter in self.adapters), *pictures)


class Finishing:
    """Finishes pictures, any number at once. With `credentials` it signs their files."""

    def __init__(
        self,
        made: MadeImages,
        ledger: Ledger,
        check: ContentCheck | None,
        credentials: "ContentCredentials | None" = None,
    ) -> None:
        self._made = made
        self._ledger = ledger
        self._check = check
        self._credentials = credentials

    async def finish(self, picture: Picture, origin: Origin) -> FinishedImage:
        """The image as it is sent.

        Raises StoreUnavailable, ResourceMissing where what it was made of is deleted, or what the checker raises.
        """
        with span("finish image", index=picture.task.index):
            if self._check and await self._check.refuses(picture.pixels_HWC):
                height, width = picture.pixels_HWC.shape[:2]
                return FinishedImage(picture.task, width, height)
            return await asyncio.to_thread(self._deliver, picture, origin)

    def _deliver(self, picture: Picture, origin: Origin) -> FinishedImage:
        request = origin.request
        provenance = Provenance(request, picture.task, origin.base_model_digest, origin.adapters)
        content = encode(picture.pixels_HWC, request.file_format, provenance)
        if self._credentials:
            content = self._credentials.sign(content, request.file_format)
        digest = hashlib.sha256(content).hexdigest()
        kept = request.delivery == "bucket"
        made = MadeImageEntry(
            digest=digest,
            project=origin.project.project,
            generation=origin.generation,
            index=picture.task.index,
            suffix=request.file_format if kept else "",
        )
        uri = ""
        self._made.note(origin.sources, made)
        if kept:
            uri, content = self._made.keep(origin.sources, made, content), b""
        self._ledger.note(origin.project, digest, _making(origin))
        height, width = picture.pixels_HWC.shape[:2]
        return FinishedImage(picture.task, width, height, media_type(request.file_format), digest, content, uri)


def _making(origin: Origin) -> Making:
    return Making(
        generation=origin.generation,
        adapters=tuple(
            LedgerAdapter(adapter=str(adapter.name), weight=adapter.weight, digest=adapter.digest)
            for adapter in origin.adapters
        ),
        base_model=origin.request.base_model,
        base_model_digest=origin.base_model_digest,
    )
