"""What would make a dataset's result better, in sentences for a person. Pure.

Its one rule: a sentence says what to do, and names the pictures it is about.
"""

from collections.abc import Sequence

from trainer_service.image_entry import ImageEntry
from trainer_service.picture_doctor import SMALL_SIDE, PictureWarning, Rejection

MINIMUM_IMAGES = 3
_COMFORTABLE_IMAGES = 10
_NAMED = 5


def advice(images: Sequence[ImageEntry]) -> list[str]:
    """The sentences for a dataset of these uploads; none where there is nothing to say."""
    accepted = [image for image in images if image.accepted]
    return [*_on_number(accepted), *_on_refusals(images), *_on_warnings(accepted), *_on_captions(accepted)]


def _on_number(accepted: Sequence[ImageEntry]) -> list[str]:
    if len(accepted) < MINIMUM_IMAGES:
        return [f"Add pictures: a training starts with {MINIMUM_IMAGES} usable ones."]
    if len(accepted) < _COMFORTABLE_IMAGES:
        return ["Ten to twenty different pictures learn a subject better than a few."]
    return []


def _on_refusals(images: Sequence[ImageEntry]) -> list[str]:
    alike = [image for image in images if image.rejection in (Rejection.DUPLICATE, Rejection.NEAR_DUPLICATE)]
    misfits = [image for image in images if image.rejection is Rejection.MASK_MISFIT]
    said = []
    if alike:
        said.append(
            f"Left out as copies of others: {_names(alike)}. Pictures that differ in pose and place teach more."
        )
    if misfits:
        said.append(
            f"Masks without effect: {_names(misfits)}. x_mask.png needs the picture x, in the same proportions."
        )
    return said


def _on_warnings(accepted: Sequence[ImageEntry]) -> list[str]:
    blurred = [image for image in accepted if PictureWarning.BLURRED in image.warnings]
    small = [image for image in accepted if PictureWarning.SMALL in image.warnings]
    said = []
    if blurred:
        said.append(f"Replace what is blurred, or the blur is learned too: {_names(blurred)}.")
    if small:
        said.append(
            f"{len(small)} of {len(accepted)} pictures are smaller than {SMALL_SIDE} pixels: a base model that trains "
            "on more enlarges them, and learns them soft."
        )
    return said


def _on_captions(accepted: Sequence[ImageEntry]) -> list[str]:
    bare = [image for image in accepted if not image.caption]
    captions = {image.caption for image in accepted if image.caption}
    if accepted and not captions:
        return ["Captions that name what varies (pose, background) keep it out of the subject."]
    said = []
    if bare:
        said.append(f"Without a caption, unlike the others: {_names(bare)}.")
    if len(captions) == 1 and len(accepted) - len(bare) > 1:
        said.append(f'All captions say "{captions.pop()}": captions help where they say how pictures differ.')
    return said


def _names(images: Sequence[ImageEntry]) -> str:
    names = [image.filename for image in images]
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
