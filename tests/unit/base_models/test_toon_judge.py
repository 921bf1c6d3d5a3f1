"""The judge of toon pictures, with its committed weights, on the six sets; four are of styles that it never saw."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from base_models.catalog import BUNDLED, read_allow_list
from base_models.families.stable_diffusion import StableDiffusion
from base_models.likeness import identity_encoder
from base_models.likeness.evaluation import evaluate, memorisation
from base_models.likeness.judge import Judge
from base_models.likeness.recipe import identity
from base_models.likeness.toon_judge import load_toon_judge

# The judge is data: it changes when it is trained anew, and not with the code.
pytestmark = pytest.mark.slow

SETS = BUNDLED["toon-64"] / "sets"
CHARACTERS = ("micah-b", "adventurer-c", "toon-a", "mini-d")
NAMES = (*CHARACTERS, "style-dylan", "style-emoji")
KEPT_OUT = ("toonHead", "dylan", "funEmoji", "miniavs")


def pictures(name: str, part: str) -> Tensor:
    """Pixels_BCHW of one part of a set."""
    paths = sorted((SETS / name / part).glob("*.png"))
    values = np.stack([np.array(Image.open(path), dtype=np.float32) for path in paths])
    return torch.from_numpy(values).permute(0, 3, 1, 2) / 127.5 - 1


def asked_scenes(name: str, part: str) -> list[str]:
    """The captions of one part of a set."""
    return [path.read_text() for path in sorted((SETS / name / part).glob("*.txt"))]


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_toon_judge(torch.device("cpu"))


@pytest.fixture(scope="module")
def base() -> StableDiffusion:
    return StableDiffusion(read_allow_list(["toon-64"])["toon-64"], torch.device("cpu"))


@pytest.fixture(scope="module")
def untuned(base: StableDiffusion, judge: Judge) -> Tensor:
    """What the base model makes of a word that it does not know."""
    prompts = [f"a picture of sks character{scene}" for scene in judge.scenes]
    return base.generate(prompts, range(len(prompts)), 64)


def nearness(judge: Judge, pixels_BCHW: Tensor, training_NCHW: Tensor) -> Tensor:
    """Mean cosine of each picture to the pictures of a set, [B]."""
    features_BD, training_ND = (judge.identity(pixels, training_NCHW) for pixels in (pixels_BCHW, training_NCHW))
    assert features_BD is not None
    assert training_ND is not None
    return (features_BD @ training_ND.T).mean(1)


@torch.no_grad()
def score(judge: Judge, base: StableDiffusion, untuned: Tensor, name: str, part: str) -> float:
    """Likeness of one part of a set, as if an adapter that was trained on the set had made it."""
    training = pictures(name, "train")
    seen = [base.decode_latents(base.encode_images(pixels)) for pixels in (training, pictures(name, part))]
    found = evaluate(judge, training, seen[0], untuned, seen[1], judge.scenes * 2).likeness
    assert found is not None
    return found


@pytest.mark.parametrize("name", CHARACTERS)
def test_a_stranger_of_the_same_style_is_not_taken_for_the_character(
    judge: Judge, base: StableDiffusion, untuned: Tensor, name: str
) -> None:
    assert score(judge, base, untuned, name, "strangers") <= 0.3


@pytest.mark.parametrize("name", NAMES)
def test_unseen_pictures_of_the_subject_score_like_training_pictures(
    judge: Judge, base: StableDiffusion, untuned: Tensor, name: str
) -> None:
    # A style is told by less than a character is: the way from 0 to 1 is a fifth as long.
    tolerance = 0.15 if name in CHARACTERS else 0.3
    assert score(judge, base, untuned, name, "unseen") == pytest.approx(1, abs=tolerance)


def test_unseen_pictures_are_nearest_to_their_own_set(judge: Judge) -> None:
    training = {name: pictures(name, "train") for name in NAMES}
    right = 0
    for name in NAMES:
        cosines = torch.stack([nearness(judge, pictures(name, "unseen"), training[other]) for other in NAMES])
        right += int((cosines.argmax(0) == NAMES.index(name)).sum())
    assert right / (16 * len(NAMES)) >= 0.95


@pytest.mark.parametrize("name", NAMES)
def test_the_background_is_read_right_in_styles_that_were_never_seen_too(judge: Judge, name: str) -> None:
    found = [judge.obedience(pictures(name, part), asked_scenes(name, part)) for part in ("train", "unseen")]
    assert sum(share for share in found if share is not None) / 2 >= 0.95


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_copies_of_training_pictures_are_told_from_unseen_ones(judge: Judge, base: StableDiffusion, name: str) -> None:
    training = pictures(name, "train")
    copies, unseen = (
        base.decode_latents(base.encode_images(pixels)) for pixels in (training, pictures(name, "unseen"))
    )
    looked = [judge.appearance(pixels) for pixels in (copies, unseen, training)]
    copies_NE, unseen_BE, training_NE = (features for features in looked if features is not None)
    copied, real = memorisation(copies_NE, copies_NE, training_NE), memorisation(unseen_BE, copies_NE, training_NE)
    assert copied is not None
    assert real is not None
    assert copied > 1.3
    assert real < copied


def test_a_wrong_background_is_disobedience(judge: Judge) -> None:
    scenes = [f"{scene}, not this but black background" for scene in asked_scenes("toon-a", "train")]
    swapped = [scene.replace("blue", "pink") for scene in scenes]
    wrong = [scene.split(" background")[0].rsplit(" ", 1)[0] + " zebra background" for scene in swapped]
    assert judge.obedience(pictures("toon-a", "train"), wrong) == 0


@pytest.mark.parametrize("name", NAMES)
def test_no_picture_of_a_set_is_there_twice(name: str) -> None:
    every = [*(SETS / name / "train").glob("*.png"), *(SETS / name / "unseen").glob("*.png")]
    assert len({path.read_bytes() for path in every}) == len(every) == 32


def test_the_encoder_is_at_most_five_megabytes() -> None:
    assert identity_encoder.WEIGHTS.stat().st_size <= 5_000_000


def test_the_styles_of_the_sets_are_drawn_for_the_sets_alone() -> None:
    render = Path(BUNDLED["toon-64"], "recipe", "render")
    drawn_for_training = "".join((render / name).read_text() for name in ("styles.mjs", "extra_styles.mjs"))
    assert not [style for style in KEPT_OUT if style in drawn_for_training]
    assert set(identity.TRAINING_STYLES).isdisjoint(identity.UNSEEN_STYLES)
