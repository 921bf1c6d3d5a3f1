"""The dataset record: which pictures were uploaded, what the doctor found, what a training may use. Pure.

Its one rule: a file is judged against what the dataset held before it, in upload order; masks once all pictures are
known.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime

from service_kit.adapter_manifest import KeptConsent
from service_kit.document import Document
from service_kit.names import DatasetName
from service_kit.picture_file import same_proportions
from trainer_service.dataset_advice import MINIMUM_IMAGES, advice
from trainer_service.image_entry import ImageEntry
from trainer_service.near_duplicates import Gallery
from trainer_service.picture_doctor import Rejection

MAX_IMAGES = 1000


class DatasetRecord(Document):
    """A dataset as stored. `images` are in upload order, rejected files included, masks in their pictures' entries."""

    project: str
    dataset: str
    request_id: str
    created_at: datetime
    updated_at: datetime
    images: tuple[ImageEntry, ...] = ()
    consent: KeptConsent = None

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
        """SHA-256 (hex) over the accepted pictures, their masks and their captions, in order."""
        total = hashlib.sha256()
        for image in self.accepted:
            total.update(f"{image.digest}{image.mask_digest}\n{image.caption}\0".encode())
        return total.hexdigest()

    @property
    def stored_digests(self) -> frozenset[str]:
        """The digests of the pictures and masks that a training of this dataset may read."""
        return frozenset(digest for image in self.accepted for digest in (image.digest, image.mask_digest) if digest)

    @property
    def advice(self) -> list[str]:
        """Sentences for a person: what would make the result better."""
        return advice(self.images)

    def with_images(self, added: Sequence[ImageEntry], now: datetime) -> "DatasetRecord":
        """The record after an upload: a file uploaded before changes nothing, copies of a picture count once."""
        pictures = [image for image in added if not image.is_mask]
        masks = [image for image in added if image.is_mask]
        images = _with_masks(_with_pictures(self.images, pictures), masks)
        return self.model_copy(update={"images": images, "updated_at": now})


def _with_pictures(images: Sequence[ImageEntry], added: Sequence[ImageEntry]) -> list[ImageEntry]:
    known = list(images)
    uploads = {(image.filename, image.source_digest) for image in known}
    gallery, pixels = Gallery(), dict[str, str]()
    for image in known:
        if image.accepted:
            _remember(image, gallery, pixels)
    for image in added:
        if (image.filename, image.source_digest) in uploads:
            continue
        if image.accepted:
            image = _unless_copy(image, gallery, pixels)
        if image.accepted:
            _remember(image, gallery, pixels)
        uploads.add((image.filename, image.source_digest))
        known.append(image)
    return known


def _remember(image: ImageEntry, gallery: Gallery, pixels: dict[str, str]) -> None:
    pixels[image.digest] = image.filename
    # Entries that are older than fingerprints have none.
    if image.fingerprint:
        gallery.add(image.filename, image.fingerprint)


def _unless_copy(image: ImageEntry, gallery: Gallery, pixels: dict[str, str]) -> ImageEntry:
    """The entry, refused where it is of the same picture as an earlier one."""
    if image.digest in pixels:
        return image.refused(Rejection.DUPLICATE, f"the same pixels as {pixels[image.digest]}")
    copied = gallery.copied(image.fingerprint)
    if copied is None:
        return image
    return image.refused(Rejection.NEAR_DUPLICATE, f"nearly the same pixels as {copied}")


def _with_masks(images: Sequence[ImageEntry], added: Sequence[ImageEntry]) -> tuple[ImageEntry, ...]:
    # A mask that is sent again is judged again: its picture may have come since.
    renewed = {mask.filename for mask in added}
    known = [image for image in images if not (image.is_mask and image.filename in renewed)]
    for mask in added:
        places = [place for place, image in enumerate(known) if image.accepted and image.stem == mask.stem]
        if mask.rejection is not None:
            known.append(mask)
        elif not places:
            detail = (
                f"taken as the mask of {mask.stem}, of which this dataset has no usable picture; send both, or rename"
            )
            known.append(mask.refused(Rejection.MASK_MISFIT, detail))
        elif not same_proportions((mask.width, mask.height), (known[places[-1]].width, known[places[-1]].height)):
            picture = known[places[-1]]
            detail = f"found {mask.width} x {mask.height} for {picture.filename} of {picture.width} x {picture.height}"
            known.append(mask.refused(Rejection.MASK_MISFIT, f"{detail}; allowed are the same proportions"))
        else:
            known[places[-1]] = known[places[-1]].masked(mask)
    return tuple(known)
