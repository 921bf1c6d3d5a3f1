"""The check of a request: what is let through, what is refused, what is filled in."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest

from base_models.catalog import BaseModelEntry
from base_models.traits.family_traits import GuidanceName
from inference_service.generation import (
    MAX_SEED,
    AdapterDraft,
    GenerationDraft,
    GenerationRequest,
    ImageTask,
    Prompt,
    PromptDraft,
)
from inference_service.generation_check import check
from inference_service.picture_decoding import decode
from inference_service.start_pictures import StartDraft
from service_kit.errors import InvalidRequest
from service_kit.names import AdapterName, AdapterVersionName, DatasetImageName
from tests.unit.inference.picture_bytes import encoded, picture


def _check(entry: BaseModelEntry, max_cost: int = 10**6, **fields: Any) -> GenerationRequest:
    numbers = itertools.count(100)
    draft = GenerationDraft(**({"prompts": (PromptDraft("a hat", (1,)),)} | fields))
    return check(
        draft,
        entry,
        ("toon-64",),
        lambda text: len(text.split()),
        lambda: next(numbers),
        max_cost,
        _no_image,
        decode,
    )


def _no_image(name: DatasetImageName) -> bytes:
    raise AssertionError(f"{name} was asked for")


def _wrong_fields(entry: BaseModelEntry, **fields: Any) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        _check(entry, **fields)
    return [violation.field for violation in caught.value.violations]


def test_defaults_are_those_of_the_base_model(toon: BaseModelEntry) -> None:
    request = _check(toon, prompts=(PromptDraft("a hat"),))
    assert request == GenerationRequest(
        project="default",
        base_model="toon-64",
        adapters=(),
        prompts=(Prompt("a hat", (100,)),),
        images_per_prompt=1,
        negative_prompt="",
        guidance_scale=3.0,
        steps=20,
        scheduler="ddim",
        width=64,
        height=64,
        file_format="png",
        preview_every=0,
        delivery="inline",
    )


def test_seeds_are_drawn_only_where_none_are_named(toon: BaseModelEntry) -> None:
    request = _check(toon, prompts=(PromptDraft("a", (5, MAX_SEED)), PromptDraft("b")), images_per_prompt=2)
    assert request.tasks == (
        ImageTask(0, 0, 5),
        ImageTask(1, 0, MAX_SEED),
        ImageTask(2, 1, 100),
        ImageTask(3, 1, 101),
    )


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("steps", [1, 150], [0, -1, 151]),
        ("guidance_scale", [1.0, 30.0], [0.99, 30.1, math.nan, math.inf, -math.inf]),
        ("width", [32, 48, 128], [0, -16, 16, 33, 513, 144, 100_000]),
        ("height", [32, 48, 128], [0, -16, 16, 33, 513, 144, 100_000]),
        ("images_per_prompt", [1, 64], [0, -1, 65]),
        ("preview_every", [0, 1, 150], [-1, 151]),
        ("delivery", ["inline", "bucket"], ["3", "post"]),
        ("scheduler", ["ddim", "euler", "dpm_solver_multistep"], ["99", "ddpm"]),
        ("project", ["p", "a-1"], ["P", "../x", "a/b", "projects/p", "x" * 64, "a\n", "\0"]),
        ("base_model", ["toon-64"], ["attacker/repo", "/etc", "TOON-64"]),
        ("negative_prompt", ["blue", "word " * 38], ["word " * 39, " ", "\0", "x" * 10_001]),
    ],
)
def test_every_field_has_its_bounds(toon: BaseModelEntry, field: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        _check(toon, **{field: value})
    for value in bad:
        assert _wrong_fields(toon, **{field: value}) == [field]


def _of_flux(toon: BaseModelEntry, guidance: GuidanceName) -> BaseModelEntry:
    defaults = replace(toon.generation, scheduler="euler", guidance_scale=3.5 if guidance == "embedded" else 1.0)
    return replace(toon, name="flux", pipeline="FluxPipeline", guidance=guidance, generation=defaults)


@pytest.mark.parametrize(
    ("guidance", "good", "bad"), [("embedded", [1.0, 3.5, 30.0], [0.99, 30.1, math.nan]), ("none", [1.0], [0.5, 1.01])]
)
def test_a_distilled_model_takes_a_guidance_scale_only_where_it_is_told_one(
    toon: BaseModelEntry, guidance: GuidanceName, good: list[float], bad: list[float]
) -> None:
    flux = _of_flux(toon, guidance)
    assert _check(flux).guidance_scale == flux.generation.guidance_scale
    assert [_check(flux, guidance_scale=scale).guidance_scale for scale in good] == good
    for scale in bad:
        assert _wrong_fields(flux, guidance_scale=scale) == ["guidance_scale"]


def test_a_scale_that_does_nothing_is_refused_with_the_reason(toon: BaseModelEntry) -> None:
    with pytest.raises(InvalidRequest, match=r"found 3\.5; allowed is 1, since flux was distilled to draw without"):
        _check(_of_flux(toon, "none"), guidance_scale=3.5)


@pytest.mark.parametrize("guidance", ["embedded", "none"])
def test_what_a_transformer_cannot_do_is_refused_at_once(toon: BaseModelEntry, guidance: GuidanceName) -> None:
    flux = _of_flux(toon, guidance)
    assert _check(flux, scheduler="euler").scheduler == "euler"
    asked = {"negative_prompt": "blue", "scheduler": "ddim", "steps": 0}
    with pytest.raises(InvalidRequest) as caught:
        _check(flux, **asked)
    said = {violation.field: violation.description for violation in caught.value.violations}
    assert said["negative_prompt"] == ("found one; allowed is none, since flux draws without classifier-free guidance")
    assert said["scheduler"] == "found 'ddim'; allowed is one of euler"
    assert set(said) == set(asked)


def test_a_told_scale_costs_nothing(toon: BaseModelEntry) -> None:
    # One pass a step, and two for encoding and decoding; classifier-free guidance takes two a step.
    assert _check(_of_flux(toon, "embedded"), max_cost=22, guidance_scale=30.0).steps == 20
    assert "guidance_scale" in _wrong_fields(toon, max_cost=41)


def test_an_unknown_file_format_is_refused(toon: BaseModelEntry) -> None:
    assert _check(toon, file_format="webp").file_format == "webp"
    assert _wrong_fields(toon, file_format="99") == ["format"]


def test_an_image_that_may_outgrow_a_message_is_for_the_bucket_only(toon: BaseModelEntry) -> None:
    large = replace(toon, max_size=2048)
    for file_format, fits, outgrows in (("png", 1088, 1120), ("webp", 1536, 1552), ("jpeg", 1536, 1552)):
        _check(large, file_format=file_format, width=fits, height=fits)
        asked = {"file_format": file_format, "width": outgrows, "height": outgrows}
        assert _wrong_fields(large, **asked) == ["delivery"]
        assert _check(large, **asked, delivery="bucket").delivery == "bucket"
        assert _wrong_fields(large, **asked, steps=0) == ["steps", "delivery"]
        # What is wrong anyway is not said twice.
        assert _wrong_fields(large, **asked | {"height": 1_000_000}) == ["height"]


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\u3000", "a\0b", "x" * 10_001, "word " * 39])
def test_a_prompt_that_cannot_be_drawn_is_refused_by_its_place(toon: BaseModelEntry, text: str) -> None:
    prompts = (PromptDraft("good"), PromptDraft("good"), PromptDraft(text))
    assert _wrong_fields(toon, prompts=prompts) == ["prompts[2].text"]


def test_tokens_found_and_allowed_are_said(toon: BaseModelEntry) -> None:
    with pytest.raises(InvalidRequest, match="found 50 tokens; allowed are 38"):
        _check(toon, prompts=(PromptDraft("word " * 50),))


def test_there_is_a_bound_on_prompts_seeds_and_images(toon: BaseModelEntry) -> None:
    assert _wrong_fields(toon, prompts=()) == ["prompts"]
    assert _wrong_fields(toon, prompts=(PromptDraft("a"),) * 65) == ["prompts"]
    assert _wrong_fields(toon, prompts=(PromptDraft("a", (1,) * 65),)) == ["prompts[0].seeds"]
    assert _wrong_fields(toon, prompts=(PromptDraft("a", (1,) * 64),) * 5) == ["prompts"]
    assert _wrong_fields(toon, prompts=(PromptDraft("a", (1, -1, MAX_SEED + 1)),)) == [
        "prompts[0].seeds[1]",
        "prompts[0].seeds[2]",
    ]


def test_adapters_may_be_named_with_and_without_a_version(toon: BaseModelEntry) -> None:
    request = _check(
        toon,
        adapters=(
            AdapterDraft("projects/p/adapters/a"),
            AdapterDraft("projects/p/adapters/b/versions/2", -2.0),
        ),
    )
    assert [(wanted.name, wanted.weight) for wanted in request.adapters] == [
        (AdapterName("p", "a"), 1.0),
        (AdapterVersionName("p", "b", 2), -2.0),
    ]


def test_nine_adapters_or_one_twice_are_refused(toon: BaseModelEntry) -> None:
    nine = tuple(AdapterDraft(f"projects/p/adapters/a{number}") for number in range(9))
    assert _wrong_fields(toon, adapters=nine) == ["adapters"]
    twice = (AdapterDraft("projects/p/adapters/a"), AdapterDraft("projects/p/adapters/a/versions/3"))
    assert _wrong_fields(toon, adapters=twice) == ["adapters[1].adapter"]


@pytest.mark.parametrize("weight", [2.1, -2.1, 1e9, math.nan, math.inf])
def test_a_weight_out_of_bounds_is_refused(toon: BaseModelEntry, weight: float) -> None:
    assert _wrong_fields(toon, adapters=(AdapterDraft("projects/p/adapters/a", weight),)) == ["adapters[0].weight"]


def test_a_request_without_a_project_is_that_of_its_first_adapter(toon: BaseModelEntry) -> None:
    theirs = (AdapterDraft("projects/theirs/adapters/a"), AdapterDraft("projects/others/adapters/b"))
    assert _check(toon, adapters=theirs).project == "theirs"
    assert _check(toon, adapters=theirs, project="mine").project == "mine"


def test_images_that_never_fit_are_refused_by_every_field_that_could_be_less(toon: BaseModelEntry) -> None:
    costly = ["prompts", "steps", "guidance_scale", "width", "height"]
    prompts = (PromptDraft("a", (1, 2)),)
    assert _check(toon, max_cost=84, prompts=prompts).tasks
    assert _wrong_fields(toon, max_cost=83, prompts=prompts) == costly
    with pytest.raises(InvalidRequest, match="2 images of 20 steps at 64 x 64, which cost 84 passes; allowed are 83"):
        _check(toon, max_cost=83, prompts=prompts)
    # All at once; but what is out of bounds has no cost.
    assert _wrong_fields(toon, max_cost=83, prompts=prompts, project="X") == ["project", *costly]
    assert _wrong_fields(toon, max_cost=83, prompts=prompts, steps=10**9) == ["steps"]


@pytest.mark.parametrize("strength", [math.inf, -math.inf, math.nan, 3e38])
def test_a_strength_that_cannot_be_computed_with_is_one_violation_among_others(
    toon: BaseModelEntry, strength: float
) -> None:
    start = StartDraft(content=encoded(picture()), strength=strength)
    assert _wrong_fields(toon, start=start, steps=0) == ["steps", "start.strength"]
