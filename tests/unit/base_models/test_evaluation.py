"""The four numbers of an evaluation, on features and pictures of which the answer is known."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from base_models.likeness.evaluation import (
    MAX_RATIO,
    Evaluation,
    diversity,
    evaluate,
    likeness,
    memorisation,
    similarity,
)
from tests.colour_judge import ColourJudge

NOTHING = Evaluation(likeness=None, obedience=None, memorisation=None, diversity=None)


def identities(axis: int, count: int, spread: float = 0.3, seed: int = 0) -> Tensor:
    """Unit features round an axis: pictures of one identity."""
    noise = torch.randn(count, 8, generator=torch.Generator().manual_seed(100 * axis + seed))
    return normalize(torch.eye(8)[axis] + spread * noise, dim=1)


def pictures(count: int, seed: int, colour: tuple[float, float, float], spread: float = 0.4) -> Tensor:
    """Blurred pictures round a colour."""
    coarse = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * spread
    shade = torch.tensor(colour).view(1, 3, 1, 1)
    return torch.nn.functional.interpolate(coarse + shade, (32, 32), mode="bilinear").clamp(-1, 1)


TRAINING = identities(0, 16)
UNTUNED = identities(1, 400)


def test_the_base_model_scores_exactly_zero_and_real_pictures_one() -> None:
    unseen = identities(0, 400, seed=1)
    assert likeness(UNTUNED, UNTUNED, TRAINING, TRAINING) == 0.0
    assert likeness(unseen, UNTUNED, TRAINING, TRAINING) == pytest.approx(1.0, abs=0.05)


def test_another_identity_scores_low_and_one_further_away_than_before_below_zero() -> None:
    assert abs(likeness(identities(2, 400), UNTUNED, TRAINING, TRAINING) or 0) < 0.1
    further = likeness(normalize(-TRAINING, dim=1), UNTUNED, TRAINING, TRAINING)
    assert further is not None
    assert further < -0.5


def test_a_picture_is_not_compared_with_its_own_original() -> None:
    cosines = TRAINING @ TRAINING.T
    others = [cosines[i, j].item() for i in range(16) for j in range(16) if i != j]
    assert similarity(TRAINING, TRAINING, leave_one_out=True) == pytest.approx(sum(others) / len(others), abs=1e-6)
    # Only the first three were autoencoded.
    others = [cosines[i, j].item() for i in range(3) for j in range(16) if i != j]
    assert similarity(TRAINING[:3], TRAINING, leave_one_out=True) == pytest.approx(sum(others) / len(others), abs=1e-6)


def test_a_base_model_that_draws_the_subject_already_leaves_no_likeness_to_measure() -> None:
    assert likeness(UNTUNED, identities(0, 12, seed=2), TRAINING, TRAINING) is None
    # One picture has no other to be compared with.
    assert likeness(UNTUNED, UNTUNED, TRAINING[:1], TRAINING[:1]) is None


def test_copies_are_memorised_and_pictures_as_new_as_the_others_are_not() -> None:
    training = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    new = torch.randn(200, 32, generator=torch.Generator().manual_seed(1))
    near = training + 0.1 * new[:16]
    assert memorisation(new, training, training) == pytest.approx(1.0, abs=0.1)
    assert 5 < (memorisation(near, training, training) or 0) < 15
    assert (memorisation(3 * new, training, training) or 1) < 0.6
    assert memorisation(training, training, training) == MAX_RATIO


def test_diversity_is_one_like_the_training_pictures_and_zero_for_one_picture_again_and_again() -> None:
    training = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    assert diversity(training, training) == pytest.approx(1.0)
    assert diversity(training / 2, training) == pytest.approx(0.5)
    assert diversity(training[:1].repeat(5, 1), training) == 0.0


def test_what_needs_two_pictures_is_not_measured_with_one() -> None:
    two = torch.randn(2, 32)
    assert memorisation(two, two[:1], two[:1]) is None
    assert diversity(two[:1], two) is None
    assert diversity(two, two[:1]) is None


def test_training_pictures_that_are_all_the_same_measure_nothing_of_copies_of_them() -> None:
    same = torch.ones(4, 32)
    assert memorisation(same, same, same) is None
    assert diversity(same, same) is None


def test_a_judge_measures_pictures() -> None:
    training, tuned = pictures(16, 0, (0.5, -0.3, 0.1)), pictures(3, 1, (0.5, -0.3, 0.1))
    untuned = pictures(3, 1, (-0.4, 0.3, 0.2))
    groups = []
    found = evaluate(
        ColourJudge(), training, training, untuned, tuned, ColourJudge.scenes, lambda: groups.append(len(groups))
    )
    assert found.likeness == pytest.approx(1.0, abs=0.3)
    assert found.obedience == pytest.approx(2 / 3)
    assert found.memorisation == pytest.approx(1.0, abs=0.3)
    assert found.diversity == pytest.approx(1.0, abs=0.3)
    assert len(groups) == 7
    copied = evaluate(ColourJudge(), training, training, untuned, training[:3] + 0.01, ColourJudge.scenes)
    assert copied.memorisation is not None
    assert copied.memorisation > 5


def test_numbers_do_not_depend_on_the_groups_that_pictures_are_looked_at_in() -> None:
    training = pictures(40, 0, (0.5, -0.3, 0.1))
    tuned, untuned = pictures(3, 1, (0.5, -0.3, 0.1)), pictures(3, 1, (-0.4, 0.3, 0.2))
    judge = ColourJudge()
    found = evaluate(judge, training, training, untuned, tuned, judge.scenes)
    looked = [judge.identity(each, training) for each in (tuned, untuned, training, training)]
    assert found.likeness == pytest.approx(likeness(*looked), abs=1e-5)


def test_what_a_judge_cannot_tell_is_absent() -> None:
    class Blind(ColourJudge):
        def identity(self, pixels_BCHW, training_NCHW):  # type: ignore[no-untyped-def,override]
            return None

        def appearance(self, pixels_BCHW):  # type: ignore[no-untyped-def,override]
            return None

        def obedience(self, pixels_BCHW, scenes):  # type: ignore[no-untyped-def,override]
            return None

    made = pictures(3, 0, (0.0, 0.0, 0.0))
    assert evaluate(Blind(), made, made, made, made, Blind.scenes) == NOTHING


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_finite_is_absent_and_never_a_number(broken: float) -> None:
    class Doubtful(ColourJudge):
        def obedience(self, pixels_BCHW, scenes):  # type: ignore[no-untyped-def,override]
            return broken

    training, tuned = pictures(4, 0, (0.5, 0.0, 0.0)), pictures(3, 1, (0.5, 0.0, 0.0))
    tuned[1, 0, 0, 0] = broken
    assert evaluate(Doubtful(), training, training, -tuned.nan_to_num(0, 0, 0), tuned, Doubtful.scenes) == NOTHING
