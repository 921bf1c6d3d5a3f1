"""Does the model draw what a prompt asks for? Prompts that no training picture had, judged by the attribute classifier.

Its one rule: prompts, seeds and settings are fixed, so the same weights on the same machine get the same figures.

Shapes: B batch, C channels, H/W 64. Pixels are in [-1, 1].
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from base_models.families.stable_diffusion import StableDiffusion
from base_models.toon_64.recipe.captions import caption
from base_models.toon_64.recipe.pictures import SIZE, Shown

GROUP = 16
"""Pictures that are made at once. Prompt i of all gets seed i."""

Counts = dict[str, tuple[int, int]]
"""How many were right and how many were judged, by what was asked for."""


class Judge(Protocol):
    """What reads a picture's attributes: base_models.likeness.attributes.AttributeClassifier."""

    heads: dict[str, tuple[str, ...]]
    """The values of each attribute, by the attribute's name in the records of pictures."""

    def predict(self, pixels_BCHW: Tensor) -> dict[str, list[str]]:
        """A value of each attribute, one a picture."""
        ...


@dataclass(frozen=True)
class Obedience:
    """What a run of prompts came to."""

    by_attribute: Counts
    """`glasses` counts prompts that ask for a kind of glasses, `no glasses` prompts that are silent about them."""
    by_style: Counts
    """What was asked for in words, all attributes together, by the style of the prompt."""
    seconds_per_picture: float


def measure(base: StableDiffusion, judge: Judge, shown: Sequence[Shown], report: Callable[[str], None]) -> Obedience:
    """Draw a picture for the caption of each record, with the base model's default settings, and judge them."""
    read: dict[str, list[str]] = defaultdict(list)
    spent_s = 0.0
    for first in range(0, len(shown), GROUP):
        group = shown[first : first + GROUP]
        started = time.monotonic()
        with torch.inference_mode():
            prompts = [caption(record) for record in group]
            pixels_BCHW = base.generate(prompts, range(first, first + len(group)), SIZE)
            spent_s += time.monotonic() - started
            for name, values in judge.predict(pixels_BCHW).items():
                read[name] += values
        if (first // GROUP + 1) % 8 == 0:
            report(f"{first + len(group)} of {len(shown)} prompts, {spent_s / (first + len(group)):.2f} s a picture")
    return Obedience(*count(shown, read), spent_s / len(shown))


def count(shown: Sequence[Shown], read: dict[str, list[str]]) -> tuple[Counts, Counts]:
    """Counts by attribute and by style, of what was asked for and the values that were read, one a record."""
    by_attribute: dict[str, list[bool]] = defaultdict(list)
    by_style: dict[str, list[bool]] = defaultdict(list)
    for name, values in read.items():
        for record, value in zip(shown, values, strict=True):
            asked = record.get(name)
            if asked is None:
                continue
            # A caption does not say what is absent.
            silent = asked == "none"
            by_attribute[f"no {name}" if silent else name].append(value == asked)
            if not silent:
                by_style[record["style"]].append(value == asked)
    return _counted(by_attribute), _counted(by_style)


def _counted(answers: dict[str, list[bool]]) -> Counts:
    return {name: (sum(right), len(right)) for name, right in sorted(answers.items())}
