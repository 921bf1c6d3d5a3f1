"""The entry of one uploaded file in a dataset's record, and which files are masks of which pictures. Pure."""

import hashlib

from pydantic import BaseModel, ConfigDict

from trainer_service.picture_doctor import Finding, PictureWarning, Rejection

_MASK_SUFFIX = "_mask.png"


class ImageEntry(BaseModel):
    """One uploaded picture, or a mask on its way to its picture.

    `digest` is that of the stored picture, `source_digest` that of the uploaded file. A mask that found its picture has
    no entry of its own: `mask_digest` and `mask_source_digest` of the picture's are what remains of it.
    """

    model_config = ConfigDict(frozen=True)

    filename: str
    caption: str
    source_digest: str
    digest: str
    rejection: Rejection | None
    detail: str
    width: int
    height: int
    source_width: int = 0
    source_height: int = 0
    source_format: str
    conversions: tuple[str, ...]
    warnings: tuple[PictureWarning, ...] = ()
    fingerprint: str = ""
    mask_digest: str = ""
    mask_source_digest: str = ""

    @property
    def accepted(self) -> bool:
        return self.rejection is None and not self.is_mask

    @property
    def is_mask(self) -> bool:
        """Whether this is the entry of a mask."""
        return is_mask(self.filename)

    @property
    def stem(self) -> str:
        """What a picture's name and that of its mask have in common."""
        return (
            self.filename[: -len(_MASK_SUFFIX)] if self.is_mask else self.filename.rpartition(".")[0] or self.filename
        )

    def refused(self, rejection: Rejection, detail: str) -> "ImageEntry":
        """The entry of a file that, among the others of its dataset, cannot be used."""
        return self.model_copy(update={"rejection": rejection, "detail": detail})

    def masked(self, mask: "ImageEntry") -> "ImageEntry":
        """The picture's entry, with its mask."""
        return self.model_copy(update={"mask_digest": mask.digest, "mask_source_digest": mask.source_digest})


def is_mask(filename: str) -> bool:
    """Whether a file is a mask, by its name: `x_mask.png` is that of the picture `x`, whatever the picture's suffix."""
    return filename.lower().endswith(_MASK_SUFFIX) and len(filename) > len(_MASK_SUFFIX)


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
        source_width=finding.source_width,
        source_height=finding.source_height,
        source_format=finding.source_format,
        conversions=finding.conversions,
        warnings=finding.warnings,
        fingerprint=finding.fingerprint,
    )
