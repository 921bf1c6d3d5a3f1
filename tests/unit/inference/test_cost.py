"""What an image costs, and what a message shows of that before its check."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest

from base_models.catalog import BaseModelEntry
from inference_service.admission import Demand
from inference_service.cost import image_cost
from inference_service.first_look import least_demand
from inference_service.generation import AdapterDraft, GenerationDraft, PromptDraft

ROOM = 10**6


@pytest.mark.parametrize(
    ("width", "height", "steps", "is_guided", "passes"),
    [
        (64, 64, 20, True, 42),
        (64, 64, 20, False, 22),
        (128, 128, 20, True, 168),
        (32, 32, 20, True, 11),
        # 1.125 passes are two.
        (32, 48, 1, False, 2),
    ],
)
def test_passes_follow_pixels_steps_and_guidance(
    width: int, height: int, steps: int, is_guided: bool, passes: int
) -> None:
    assert image_cost(width, height, steps, is_guided, default_size=64) == passes


def _least(toon: BaseModelEntry, *others: BaseModelEntry, max_cost: int = ROOM, **fields: Any) -> Demand | None:
    draft = GenerationDraft(**({"prompts": (PromptDraft("a", (1, 2)), PromptDraft("b"))} | fields))
    return least_demand(draft, [toon, *others], max_cost)


def test_a_message_shows_whose_it_is_and_what_it_costs(toon: BaseModelEntry) -> None:
    assert _least(toon) == Demand("default", 3, 42)
    theirs = (AdapterDraft("projects/theirs/adapters/a"), AdapterDraft("projects/others/adapters/a"))
    assert _least(toon, images_per_prompt=5, steps=4, guidance_scale=1.0, width=128, adapters=theirs) == Demand(
        "theirs", 7, 12
    )
    assert _least(toon, project="mine", adapters=theirs) == Demand("mine", 3, 42)


def test_what_a_base_model_could_make_of_it_at_least_counts(toon: BaseModelEntry) -> None:
    quick = replace(toon, generation=replace(toon.generation, steps=4))
    assert _least(toon, quick) == Demand("default", 3, 10)


def test_what_is_out_of_bounds_is_left_to_the_check(toon: BaseModelEntry) -> None:
    least = Demand("default", 3, image_cost(32, 32, 1, False, 64))
    for steps, guidance_scale, size in itertools.product((0, -5, 10**9), (0.0, math.nan, math.inf), (-8, 0, 10**6)):
        assert _least(toon, steps=steps, guidance_scale=guidance_scale, width=size, height=size) == least
    for images_per_prompt in (-5, 10_000):
        assert _least(toon, images_per_prompt=images_per_prompt) is None
    assert _least(toon, prompts=()) is None
    assert _least(toon, max_cost=125) is None
    assert _least(toon, project="../x", adapters=(AdapterDraft("projects/p/adapters/a"),)) == Demand("default", 3, 42)
    assert _least(toon, adapters=(AdapterDraft("../x"),)) == Demand("default", 3, 42)
