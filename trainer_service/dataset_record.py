"""The dataset record: which pictures were uploaded, what the doctor found, what a training may use. Pure."""

import hashlib
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from service_kit.document import Document
from service_kit.names import DatasetName
from trainer_service.picture_doctor import Finding, Rejection

MINIMUM_IMAGES = 3
MAX_IMAGES = 1000
_COMFORTABLE_IMAGES = 10


class ImageEntry(BaseModel):
    """One uploaded picture. `digest` is that of the stored picture, `source_digest` that of the uploaded file."""

    model_config = ConfigDict(frozen=True)

    filename: str
    caption: str
    source_digest: str
    digest: str
    rejection: Rejection | None
    detail: str
    width: int
    height: int
    source_format: str
    conversions: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        return self.rejection is None


class DatasetRecord(Document):
    """A dataset as stored. `images` are in upload order, rejected ones included."""

    project: str
    dataset: str
    request_id: str
    created_at: datetime
    updated_at: datetime
    images: tuple[ImageEntry, ...] = ()

    @property
    def name(self) -> DatasetName:
        return DatasetName(self.project, self.dataset)

    @property
    def accepted(self) -> tuple[ImageEntry, ...]:
        """The pictures a training uses."""
        return tuple(image for image in self.images if image.accepted)

    @property
    def ready(self) -> bool:
        """Whether a training may start."""
        return len(self.accepted) >= MINIMUM_IMAGES

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the accepted pictures and their captions, in order."""
        total = hashlib.sha256()
        for image in self.accepted:
            total.update(f"{image.digest}\n{image.caption}\0".encode())
        return total.hexdigest()

    @property
    def advice(self) -> list[str]:
        """Sentences for a person: what would make the result better."""
        said = []
        if not self.ready:
            said.append(f"Add pictures: a training starts with {MINIMUM_IMAGES} usable ones.")
        elif len(self.accepted) < _COMFORTABLE_IMAGES:
            said.append("Ten to twenty different pictures learn a subject better than a few.")
        if self.accepted and not any(image.caption for image in self.accepted):
            said.append("Captions that name what varies (pose, background) keep it out of the subject.")
        return said

    def with_images(self, added: list[ImageEntry], now: datetime) -> "DatasetRecord":
        """The record after an upload: a file that was uploaded before changes nothing, equal pixels count once."""
        images = list(self.images)
        uploads = {(image.filename, image.source_digest) for image in images}
        pixels = {image.digest: image.filename for image in images if image.accepted}
        for image in added:
            if (image.filename, image.source_digest) in uploads:
                continue
            if image.accepted and image.digest in pixels:
                detail = f"the same pixels as {pixels[image.digest]}"
                image = image.model_copy(update={"rejection": Rejection.DUPLICATE, "detail": detail})
            elif image.accepted:
                pixels[image.digest] = image.filename
            uploads.add((image.filename, image.source_digest))
            images.append(image)
        return self.model_copy(update={"images": tuple(images), "updated_at": now})


def image_entry(filename: str, caption: str, body: bytes, finding: Finding) -> ImageEntry:
    """The entry of an uploaded file and what the doctor found in it."""
    return ImageEntry(
        filename=filename,
        caption=caption,
        source_digest=hashlib.sha256(body).hexdigest(),
        digest=finding.digest,
        rejection=finding.rejection,
        detail=finding.detail,
        width=finding.width,
        height=finding.height,
        source_format=finding.source_format,
        conversions=finding.conversions,
    )
