"""The same picture: alone, among others with other adapters, and from plain diffusers, for every scheduler.

Equality is the design's: final float32 latents within 1e-3 at most and 1e-4 on average.
"""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from base_models.catalog import BaseModelEntry
from base_models.loading import load_base_model
from base_models.pipelines import adaptable_modules
from base_models.traits.family_traits import SchedulerName
from inference_service.generation import GenerationRequest, Prompt
from tests.plain_diffusers import denoise, wearing
from tests.random_adapter import ALL, ATTENTION, TEXT_ATTENTION, random_adapter
from tests.unit.inference.quick_requests import quick_request
from tests.unit.inference.step_rows import SLOT_RANK, StepRows

STEPS = 20
NEIGHBOURS = 7
SEED = 3
Worn = Sequence[tuple[bytes, float]]
# Which adapter each of eight requests wears; the first is the one that is looked at.
POPULARITY = {"identical": [0] * 8, "distinct": list(range(8)), "skewed": [1, 0, 0, 0, 0, 2, 2, 1]}
EVERYWHERE = {"unet": ALL, "text_encoder": TEXT_ATTENTION}


@pytest.fixture(scope="module")
def steps(toon: BaseModelEntry) -> Iterator[StepRows]:
    rows = StepRows(load_base_model(toon, torch.device("cpu")))
    yield rows
    rows.close()


def assert_equal_latents(found: Tensor, wanted: Tensor) -> None:
    difference = (found - wanted).abs()
    assert difference.max() <= 1e-3
    assert difference.mean() <= 1e-4


def _request(seed: int, **changes: Any) -> GenerationRequest:
    # The smallest pictures, since every step of every one of them is computed three times.
    fields = {"steps": STEPS, "negative_prompt": "blue", "width": 32, "height": 32}
    return quick_request(seed, **(fields | changes))


def _adapters(pipeline: Any, count: int, ranks: Sequence[int], targets: Any) -> list[bytes]:
    modules = adaptable_modules(pipeline)
    return [random_adapter(modules, targets, seed, ranks[seed % len(ranks)]) for seed in range(count)]


def _neighbour(index: int, scheduler: SchedulerName) -> GenerationRequest:
    """Others differ in all that may differ within a batch."""
    schedulers = get_args(SchedulerName)
    return _request(
        100 + index,
        scheduler=schedulers[(schedulers.index(scheduler) + index) % len(schedulers)],
        steps=12 + 2 * index,
        guidance_scale=(1.0, 3.0, 7.5)[index % 3],
        prompts=(Prompt(f"a character with {index} hats", (100 + index,)),),
    )


@pytest.mark.parametrize(
    ("popularity", "ranks"),
    [
        ("skewed", (16, 2, 8)),
        pytest.param("distinct", (16, 2, 8), marks=pytest.mark.slow),
        pytest.param("skewed", (4,), marks=pytest.mark.slow),
        pytest.param("distinct", (4,), marks=pytest.mark.slow),
        pytest.param("identical", (4,), marks=pytest.mark.slow),
        pytest.param("identical", (16, 2, 8), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("scheduler", get_args(SchedulerName))
def test_a_request_is_the_same_alone_among_seven_others_and_in_diffusers(
    steps: StepRows, plain_pipeline: Any, scheduler: SchedulerName, popularity: str, ranks: tuple[int, ...]
) -> None:
    wearers = POPULARITY[popularity]
    bodies = _adapters(plain_pipeline, 1 + max(wearers), ranks, EVERYWHERE if len(ranks) == 1 else {"unet": ATTENTION})
    request, worn = _request(SEED, scheduler=scheduler), [(bodies[wearers[0]], 1.0)]

    alone = steps.add(request, worn)
    latents_alone = steps.run()[alone, SEED]

    joined = steps.add(request, worn)
    for index, wearer in enumerate(wearers[1:], start=1):
        # They join while it runs, so that no two rows of a batch are at the same step.
        steps.loop.step()
        steps.add(_neighbour(index, scheduler), [(bodies[wearer], 0.3 * index)])
    passes = steps.loop.counters.forwards
    latents_joined = steps.run()[joined, SEED]
    assert steps.loop.counters.forwards - passes < STEPS + NEIGHBOURS

    with wearing(plain_pipeline, worn):
        wanted = denoise(plain_pipeline, request)[0]
    assert_equal_latents(latents_alone, wanted)
    assert_equal_latents(latents_joined, wanted)
    # Were the adapter not worn, this would be small too.
    assert (wanted - denoise(plain_pipeline, request)[0]).abs().mean() > 0.01


@pytest.mark.slow
def test_several_weighted_adapters_share_a_batch_with_one_and_with_none(steps: StepRows, plain_pipeline: Any) -> None:
    bodies = _adapters(plain_pipeline, 3, (8, 2, 4), EVERYWHERE)
    outfits: list[Worn] = [
        [(bodies[0], 0.7), (bodies[1], -0.4), (bodies[2], 1.2)],
        [(bodies[1], 1.0)],
        [],
        [(bodies[0], 0.5), (bodies[0], 0.5)],
    ]
    jobs = [steps.add(_request(seed, guidance_scale=(3.0, 1.0)[seed % 2]), worn) for seed, worn in enumerate(outfits)]
    found = steps.run()
    for seed, (job, worn) in enumerate(zip(jobs, [*outfits[:3], [(bodies[0], 1.0)]], strict=True)):
        with wearing(plain_pipeline, worn):
            assert_equal_latents(found[job, seed], denoise(plain_pipeline, job.request)[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dora", "high-rank"])
def test_what_fits_no_slot_runs_in_batches_of_its_own(steps: StepRows, plain_pipeline: Any, kind: str) -> None:
    modules = adaptable_modules(plain_pipeline)
    options: dict[str, Any] = {"is_dora": True} if kind == "dora" else {"rank": SLOT_RANK + 1}
    body = random_adapter(modules, EVERYWHERE, 5, **options)
    slotted = random_adapter(modules, {"unet": ATTENTION}, 6)
    worn = [(body, 0.8), (slotted, 0.5)]
    first, second = steps.add(_request(1), worn), steps.add(_request(2), worn)
    other = steps.add(_request(4), [(slotted, 1.0)])
    passes = steps.loop.counters.forwards
    found = steps.run()
    assert steps.loop.counters.forwards - passes == 2 * STEPS
    for job, seed in ((first, 1), (second, 2)):
        with wearing(plain_pipeline, worn):
            assert_equal_latents(found[job, seed], denoise(plain_pipeline, job.request)[0])
    with wearing(plain_pipeline, [(slotted, 1.0)]):
        assert_equal_latents(found[other, 4], denoise(plain_pipeline, other.request)[0])


def test_a_seed_means_the_same_picture_wherever_it_stands_in_whichever_request(steps: StepRows) -> None:
    alone = steps.add(_request(8))
    wanted = steps.run()[alone, 8]
    among = steps.add(_request(7, prompts=(Prompt("a cat", (1, 2)), Prompt(_request(8).prompts[0].text, (9, 8, 7)))))
    assert_equal_latents(steps.run()[among, 8], wanted)
