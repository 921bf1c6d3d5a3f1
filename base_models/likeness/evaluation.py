"""How good an adapter is, in four numbers. Pure functions of features; what the features are is the judge's.

Its one rule: what cannot be measured is None, never a number that looks measured, and never a NaN.

Shapes: N training pictures, M of them autoencoded (the first M), B generated pictures, C channels, H/W height and
width, D identity and E appearance features. Pixels are in [-1, 1].
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from base_models.likeness.judge import Judge

MAX_RATIO = 100.0
_LEAST_REACH = 0.05
_GROUP = 16


@dataclass(frozen=True)
class Evaluation:
    """Four numbers about an adapter; each is None where the judge cannot tell. Defined by the functions below."""

    likeness: float | None
    obedience: float | None
    memorisation: float | None
    diversity: float | None


def similarity(features_BD: Tensor, training_ND: Tensor, *, leave_one_out: bool = False) -> float:
    """s = mean over all pairs (b, n) of cos(features_b, training_n); all features are unit.

    leave_one_out: picture i is training picture i, autoencoded, so the pairs (i, i) do not count. NaN without a pair.
    """
    cosines = features_BD @ training_ND.T
    if leave_one_out:
        others_BN = ~torch.eye(*cosines.shape, dtype=torch.bool, device=cosines.device)
        cosines = cosines[others_BN]
    return cosines.mean().item()


def likeness(tuned_BD: Tensor, untuned_BD: Tensor, autoencoded_MD: Tensor, training_ND: Tensor) -> float | None:
    """(s(tuned) - s(untuned)) / (s(autoencoded training pictures, leave one out) - s(untuned)).

    So the base model scores exactly 0, and real pictures, seen through the same autoencoder, score 1. Not clamped:
    below 0 is less like the subject than before. None where the way from 0 to 1 is 0.05 of cosine or less: there the
    base model draws the subject already, as far as this judge can see, and the quotient would be noise.
    """
    untuned = similarity(untuned_BD, training_ND)
    reach = similarity(autoencoded_MD, training_ND, leave_one_out=True) - untuned
    # False for NaN too: without another training picture to compare with there is no way to measure.
    if not reach > _LEAST_REACH:
        return None
    return (similarity(tuned_BD, training_ND) - untuned) / reach


def memorisation(tuned_BE: Tensor, autoencoded_ME: Tensor, training_NE: Tensor) -> float | None:
    """(mean distance of the autoencoded training pictures to their nearest *other* training picture) / (mean distance
    of the generated pictures to their nearest training picture).

    1: generated pictures are as near to training pictures as those are to each other. Above 1: copying. None for fewer
    than 2 training pictures.
    """
    if len(training_NE) < 2:
        return None
    real_MN = _distances(autoencoded_ME, training_NE).fill_diagonal_(math.inf)
    generated_BN = _distances(tuned_BE, training_NE)
    return _bounded(real_MN.amin(dim=1).mean() / generated_BN.amin(dim=1).mean())


def diversity(tuned_BE: Tensor, autoencoded_ME: Tensor) -> float | None:
    """(mean distance of all pairs of generated pictures) / (that of all pairs of autoencoded training pictures).

    1: as varied as the training pictures; 0: always the same picture. None where either has fewer than 2 pictures.
    """
    if len(tuned_BE) < 2 or len(autoencoded_ME) < 2:
        return None
    return _bounded(torch.pdist(tuned_BE).mean() / torch.pdist(autoencoded_ME).mean())


@torch.no_grad()
def evaluate(
    judge: Judge,
    training_NCHW: Tensor,
    autoencoded_MCHW: Tensor,
    untuned_BCHW: Tensor,
    tuned_BCHW: Tensor,
    scenes: Sequence[str],
    between_groups: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Have a judge look at everything and compute the numbers.

    training_NCHW: what was learnt from. autoencoded_MCHW: the first M of those, through the base model's autoencoder.
    untuned_BCHW, tuned_BCHW: generated without and with the adapter from the same prompts and seeds, picture b with
    scenes[b]. `between_groups` is called now and then and may raise to interrupt.
    """

    def look(at: Callable[[Tensor], Tensor | None], *sets: Tensor) -> list[Tensor] | None:
        found = [_features(at, pixels_BCHW, between_groups) for pixels_BCHW in sets]
        whole = [features for features in found if features is not None]
        return whole if len(whole) == len(sets) else None

    identities = look(
        partial(judge.identity, training_NCHW=training_NCHW), tuned_BCHW, untuned_BCHW, autoencoded_MCHW, training_NCHW
    )
    appearances = look(judge.appearance, tuned_BCHW, autoencoded_MCHW, training_NCHW)
    obeyed = judge.obedience(tuned_BCHW, scenes)
    return Evaluation(
        likeness=likeness(*identities) if identities else None,
        obedience=obeyed if obeyed is not None and math.isfinite(obeyed) else None,
        memorisation=memorisation(*appearances) if appearances else None,
        diversity=diversity(*appearances[:2]) if appearances else None,
    )


def _features(
    look: Callable[[Tensor], Tensor | None], pixels_BCHW: Tensor, between_groups: Callable[[], None]
) -> Tensor | None:
    """Features of all pictures, in groups that bound the memory; None where there are none or they are not finite."""
    groups = []
    for pixels in pixels_BCHW.split(_GROUP):
        between_groups()
        features = look(pixels)
        if features is None or not torch.isfinite(features).all():
            return None
        groups.append(features.float())
    return torch.cat(groups)


def _distances(one_BE: Tensor, other_NE: Tensor) -> Tensor:
    # The quicker way by matrix products loses the small distances, and a copy's distance is the one that matters.
    return torch.cdist(one_BE, other_NE, compute_mode="donot_use_mm_for_euclid_dist")


def _bounded(ratio: Tensor) -> float | None:
    """The ratio, at most MAX_RATIO, which stands for infinity too; None for 0 / 0."""
    value = ratio.item()
    return None if math.isnan(value) else min(value, MAX_RATIO)
