"""What a message shows before its check: whose it is, and the least that it could cost.

Its one rule: arithmetic alone, so that a server that is full spends next to nothing on refusing.
"""

from collections.abc import Iterable
from typing import TypeVar

from base_models.catalog import BaseModelEntry
from inference_service.admission import Demand
from inference_service.cost import image_cost
from inference_service.generation import (
    MAX_GUIDANCE_SCALE,
    MAX_IMAGES,
    MAX_STEPS,
    GenerationDraft,
    image_count,
    project_of,
)

N = TypeVar("N", int, float)


def least_demand(draft: GenerationDraft, base_models: Iterable[BaseModelEntry], max_cost: int) -> Demand | None:
    """What a draft asks for at least, on any of the base models that it may mean. What is out of bounds counts least.

    None: it can never be admitted, since its images are too many or cost more than `max_cost` together. That is for the
    check to say, with all else that is wrong, however full the queue is.
    """
    images = image_count(draft)
    cost = min(_image_cost(draft, base_model) for base_model in base_models)
    if not 1 <= images <= MAX_IMAGES or images * cost > max_cost:
        return None
    return Demand(project_of(draft), images, cost)


def _image_cost(draft: GenerationDraft, base_model: BaseModelEntry) -> int:
    defaults, smallest, largest = base_model.generation, base_model.min_size, base_model.max_size
    return image_cost(
        _within(smallest, draft.width, base_model.default_size, largest),
        _within(smallest, draft.height, base_model.default_size, largest),
        # How many are left of them for an image that starts from a picture is for the check to find out.
        1 if draft.start else _within(1, draft.steps, defaults.steps, MAX_STEPS),
        base_model.is_guided(_within(1, draft.guidance_scale, defaults.guidance_scale, MAX_GUIDANCE_SCALE)),
        base_model.default_size,
    )


def _within(lowest: N, found: N | None, default: N, highest: N) -> N:
    value = default if found is None else found
    return value if lowest <= value <= highest else lowest
