"""Advice: each sentence comes when it helps, names its pictures, and a good dataset gets none."""

from trainer_service.dataset_advice import advice
from trainer_service.image_entry import ImageEntry
from trainer_service.picture_doctor import PictureWarning, Rejection


def entry(index: int, **changes: object) -> ImageEntry:
    values: dict[str, object] = {
        "filename": f"{index:02}.jpg",
        "caption": f"scene {index}",
        "source_digest": f"{index}",
        "digest": f"{index}",
        "rejection": None,
        "detail": "",
        "width": 600,
        "height": 800,
        "source_format": "JPEG",
        "conversions": (),
    }
    return ImageEntry(**(values | changes))  # type: ignore[arg-type]


def good(count: int = 16, **changes: object) -> list[ImageEntry]:
    return [entry(index, **changes) for index in range(count)]


def test_a_good_dataset_gets_no_advice() -> None:
    assert advice(good()) == []


def test_few_pictures_and_too_few_are_told_apart() -> None:
    assert advice(good(2)) == ["Add pictures: a training starts with 3 usable ones."]
    assert advice(good(9)) == ["Ten to twenty different pictures learn a subject better than a few."]


def test_blurred_pictures_are_named_five_at_most() -> None:
    (said,) = advice([*good(10), *(entry(index, warnings=(PictureWarning.BLURRED,)) for index in range(20, 27))])
    assert "20.jpg, 21.jpg, 22.jpg, 23.jpg, 24.jpg and 2 more" in said


def test_small_pictures_are_counted() -> None:
    (said,) = advice([*good(10), *(entry(index, warnings=(PictureWarning.SMALL,)) for index in range(20, 24))])
    assert said.startswith("4 of 14 pictures are smaller than 256 pixels")


def test_copies_are_named_as_left_out() -> None:
    (said,) = advice([*good(), entry(20, rejection=Rejection.NEAR_DUPLICATE), entry(21, rejection=Rejection.DUPLICATE)])
    assert said.startswith("Left out as copies of others: 20.jpg, 21.jpg.")


def test_captions_are_missing_everywhere_or_somewhere_or_say_nothing() -> None:
    assert advice(good(caption="")) == ["Captions that name what varies (pose, background) keep it out of the subject."]
    assert advice([*good(), entry(20, caption="")]) == ["Without a caption, unlike the others: 20.jpg."]
    (said,) = advice(good(caption="a cat"))
    assert said.startswith('All captions say "a cat"')
