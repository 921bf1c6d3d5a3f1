"""The picture that images start from, and its mask: as sent, opened, and as the engine takes them.

Its one rule: what is wrong with either is said with all else that is wrong with the request, or, of a picture in the
bucket, before anything is computed. All of it takes time; nothing here may run on the event loop.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from inference_service.picture_decoding import Decode
from service_kit import picture_file, schema
from service_kit.errors import DataLost, ResourceMissing, Violations
from service_kit.names import DatasetImageName, MalformedName
from service_kit.picture_file import PictureRefused
from service_kit.store import ObjectMissing, ObjectStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_BYTES = 3 * 1024 * 1024
DEFAULT_STRENGTH = 0.8
DEFAULT_STRENGTH_MASKED = 1.0

ReadImage = Callable[[DatasetImageName], bytes]
"""The file of an uploaded picture. Raises ResourceMissing or DataLost."""


@dataclass(frozen=True)
class StartDraft:
    """A start as sent: `content` or `image`, None where the other was chosen. An empty mask is none."""

    content: bytes | None = None
    image: str | None = None
    strength: float | None = None
    mask: bytes = b""


# No comparing: arrays have no one answer to whether they are equal.
@dataclass(frozen=True, eq=False)
class Start:
    """What the images of a request start from, of their width and height."""

    picture_HWC: "NDArray[np.uint8]"
    """RGB."""
    mask_HW: "NDArray[np.float32] | None"
    """1 where the picture is drawn anew, 0 where it stays; None: all of it is drawn anew, as far as `strength` goes."""
    strength: float
    image: DatasetImageName | None
    """The uploaded picture; None: it came with the request."""
    digest: str
    """SHA-256 (hex) of the picture's file."""
    mask_digest: str
    """SHA-256 (hex) of the mask's file; empty without one."""


@dataclass(frozen=True)
class OpenedStart:
    """A start in which nothing wrong was found. `picture` is None where it is still in the bucket."""

    picture: Image.Image | None
    mask: Image.Image | None
    strength: float
    image: DatasetImageName | None
    digest: str
    mask_digest: str

    def fitted(self, width: int, height: int, read_image: ReadImage, decode: Decode) -> Start:
        """Cut and scaled to the images' size. Raises ResourceMissing, DataLost, or InvalidRequest for the mask."""
        picture = self.picture or _stored(self.image, read_image, decode)
        violations = Violations()
        _check_proportions(picture, self.mask, violations)
        violations.raise_if_any()
        fitted = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
        return Start(
            picture_HWC=np.asarray(fitted),
            mask_HW=None if self.mask is None else _fitted_mask(self.mask, width, height),
            strength=self.strength,
            image=self.image,
            digest=self.digest,
            mask_digest=self.mask_digest,
        )


def first_step(steps: int, strength: float) -> int:
    """Which of `steps`, from 0, is the first to run; `steps` where none is. As SDXL's `get_timesteps` in diffusers."""
    return steps - min(int(steps * strength), steps)


def open_start(draft: StartDraft, steps: int, violations: Violations, decode: Decode) -> OpenedStart:
    """Decode what came with the request and note what is wrong with it. Without violations, the answer can be used."""
    strength = draft.strength
    if strength is None:
        strength = DEFAULT_STRENGTH_MASKED if draft.mask else DEFAULT_STRENGTH
    # False for NaN too.
    if not 0 < strength <= 1:
        violations.check(False, "start.strength", strength, "above 0 to 1")
        # What else is wrong is found with one that can be computed with; infinity cannot.
        strength = DEFAULT_STRENGTH
    elif steps > 0 and first_step(steps, strength) == steps:
        # Rounded up, because int() rounds down.
        least = math.ceil(1000 / steps) / 1000
        violations.add(
            "start.strength", f"found {strength:g}, which of {steps} steps runs none; allowed is {least:g} or more"
        )
    if draft.content is None and draft.image is None:
        violations.add("start", "found no picture; allowed is content or image")
    size_bytes = len(draft.content or b"") + len(draft.mask)
    violations.check(
        size_bytes <= MAX_BYTES,
        "start.mask" if draft.content is None else "start.content",
        f"{size_bytes} bytes of picture and mask",
        f"at most {MAX_BYTES} together",
    )
    picture = mask = image = None
    if size_bytes <= MAX_BYTES:
        if draft.content is not None:
            picture = _decoded(draft.content, violations, decode)
        if draft.mask:
            mask = _decoded_mask(draft.mask, violations, decode)
        if picture is not None:
            _check_proportions(picture, mask, violations)
    if draft.image is not None:
        image = _parsed(draft.image, violations)
    return OpenedStart(
        picture=picture,
        mask=mask,
        strength=strength,
        image=image,
        digest=image.digest if image else hashlib.sha256(draft.content or b"").hexdigest(),
        mask_digest=hashlib.sha256(draft.mask).hexdigest() if draft.mask else "",
    )


def read_dataset_image(store: ObjectStore, name: DatasetImageName) -> bytes:
    """See ReadImage."""
    try:
        body = store.get(schema.dataset_image(name.dataset, name.digest)).body
    except ObjectMissing:
        raise ResourceMissing("DatasetImage", str(name)) from None
    if hashlib.sha256(body).hexdigest() != name.digest:
        raise DataLost(f"the stored picture {name} does not have its hash; upload it again")
    return body


def _stored(name: DatasetImageName | None, read_image: ReadImage, decode: Decode) -> Image.Image:
    assert name is not None, "a start has a picture or the name of one"
    try:
        return decode("picture", read_image(name))
    except PictureRefused as refused:
        raise DataLost(f"the stored picture {name} cannot be read ({refused}); upload it again") from refused


def _decoded(body: bytes, violations: Violations, decode: Decode) -> Image.Image | None:
    try:
        return decode("picture", body)
    except PictureRefused as refused:
        violations.add("start.content", refused.detail)
        return None


def _decoded_mask(body: bytes, violations: Violations, decode: Decode) -> Image.Image | None:
    try:
        mask = decode("mask", body)
    except PictureRefused as refused:
        violations.add("start.mask", refused.detail)
        return None
    if mask.getextrema()[1] < picture_file.WHITE:  # type: ignore[operator]
        violations.add("start.mask", "found white nowhere; white is what is drawn anew")
        return None
    return mask


def _check_proportions(picture: Image.Image, mask: Image.Image | None, violations: Violations) -> None:
    if mask is not None and not picture_file.same_proportions(mask.size, picture.size):
        violations.add(
            "start.mask",
            f"found {mask.width} x {mask.height} for a picture of {picture.width} x {picture.height}; "
            "allowed are the same proportions",
        )


def _parsed(text: str, violations: Violations) -> DatasetImageName | None:
    try:
        return DatasetImageName.parse(text)
    except MalformedName as error:
        violations.add("start.image", str(error))
        return None


def _fitted_mask(mask: Image.Image, width: int, height: int) -> "NDArray[np.float32]":
    # BOX, because sharper filters ring: grey would appear beside the edges.
    fitted_HW = np.asarray(ImageOps.fit(mask, (width, height), Image.Resampling.BOX))
    return (fitted_HW >= picture_file.WHITE).astype(np.float32)
