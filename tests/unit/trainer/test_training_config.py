"""What is decided where the caller says nothing, what is refused, and what a training is estimated to take."""

from dataclasses import replace

import pytest

from base_models.catalog import BaseModelEntry, read_allow_list
from base_models.traits import FAMILIES
from service_kit.errors import Violation, Violations
from trainer_service.estimating import Speed, basis_of, seconds_of
from trainer_service.training_config import Given, TrainingConfig, check_ranges, decide, training_prompt

ENTRY = read_allow_list(["toon-64"])["toon-64"]
SUBJECT = "a picture of sks character"


def decided(given: Given | None = None, images: int = 16, entry: BaseModelEntry = ENTRY) -> TrainingConfig:
    return decide(given or {}, entry, seed=1, images=images, subject=SUBJECT)


def refused(given: Given) -> set[str]:
    return {violation.field.removeprefix("config.") for violation in violated(given, ENTRY)}


def violated(given: Given, entry: BaseModelEntry) -> list[Violation]:
    violations = Violations()
    check_ranges(given, entry, "config", violations)
    return violations.found


def test_sixteen_pictures_get_the_steps_that_the_base_model_names() -> None:
    assert decided().steps == ENTRY.training.steps
    assert [decided({"preset": preset}).steps for preset in ("fast", "balanced", "quality")] == [70, 140, 420]
    assert decided({"preset": "quality"}).ema_decay > 0


def test_more_pictures_get_more_steps_within_bounds() -> None:
    steps = [decided(images=images).steps for images in (3, 8, 16, 24, 40, 1000)]
    assert steps == sorted(steps)
    assert (steps[0], steps[3], steps[-1]) == (84, 210, 350)
    assert decided({"steps": 9}, images=1000).steps == 9


def test_pictures_are_held_out_where_there_are_enough() -> None:
    assert [decided(images=images).validation_images for images in (16, 23, 24, 100)] == [0, 0, 2, 10]


def test_what_depends_on_another_choice_follows_it() -> None:
    assert decided({"optimizer": "prodigy"}).learning_rate == 1.0
    assert decided({"min_snr_gamma": 3.0}).loss_weighting == "min_snr"
    assert decided().loss_weighting == "constant"
    assert decided({"rank": 4}).alpha == 4.0
    assert decided({"steps": 4}).warmup_steps == 4
    assert all(prompt.startswith(SUBJECT) for prompt in decided().sample_prompts)


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({"learning_rate": 1.0}, {"learning_rate"}),
        ({"learning_rate": 1.0, "optimizer": "prodigy"}, set()),
        ({"learning_rate": 11.0, "optimizer": "prodigy"}, {"learning_rate"}),
        ({"noise_offset": float("nan"), "ema_decay": 1.0}, {"noise_offset", "ema_decay"}),
        ({"masked_weight": -0.1}, {"masked_weight"}),
        ({"gradient_accumulation": 0, "early_stop_patience": 101}, {"gradient_accumulation", "early_stop_patience"}),
        ({"early_stop_patience": 2, "validate_every": 0}, {"early_stop_patience"}),
        ({"min_snr_gamma": 5.0, "loss_weighting": "p2"}, {"min_snr_gamma"}),
        ({"min_snr_gamma": 0.0}, {"min_snr_gamma"}),
        ({"caption_template": "a picture, {caption}"}, {"caption_template"}),
        ({"caption_template": "{trigger_word.__class__}"}, {"caption_template"}),
        ({"caption_template": "{trigger_word:>9999999}"}, {"caption_template"}),
        ({"caption_template": "{trigger_word} {0}"}, {"caption_template"}),
        ({"caption_template": "{trigger_word} {"}, {"caption_template"}),
        ({"caption_template": "{trigger_word}\n"}, {"caption_template"}),
        ({"caption_template": "photo of {trigger_word}"}, set()),
        ({"sample_prompts": ("x",) * 5}, {"sample_prompts"}),
        ({"sample_prompts": ("x", " ", "a\0")}, {"sample_prompts[1]", "sample_prompts[2]"}),
    ],
)  # fmt: skip
def test_every_violation_is_named_at_once(given: Given, fields: set[str]) -> None:
    assert refused(given) == fields


def test_a_text_encoder_that_adapters_may_not_change_is_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = replace(ENTRY.traits, pipeline="AlonePipeline", adaptable=("transformer",))
    monkeypatch.setitem(FAMILIES, "AlonePipeline", alone)
    entry = replace(ENTRY, pipeline="AlonePipeline")
    (found,) = violated({"text_encoder_learning_rate": 1e-5}, entry)
    assert found.field == "config.text_encoder_learning_rate"
    assert found.description == (
        "found 1e-05; allowed is 0, since toon-64 has no text encoder that adapters may change"
    )
    assert violated({"text_encoder_learning_rate": 0.0}, entry) == []
    # What is wrong anyway is not said twice.
    assert len(violated({"text_encoder_learning_rate": 1.0}, entry)) == 1
    assert violated({"text_encoder_learning_rate": 1e-5}, ENTRY) == []


def test_a_template_loses_what_leads_to_a_caption_that_is_not_there() -> None:
    assert training_prompt("{caption} of {trigger_word}, {caption}", "sks", "cat", "red") == "red of sks, red"
    assert training_prompt("a {trigger_word} {class_noun}, {caption}", "sks", "cat", "") == "a sks cat"
    assert training_prompt("{trigger_word}", "sks", "cat", "red") == "sks"


SPEED = Speed(
    hardware="a test's clock",
    training="projects/default/trainings/t",
    seconds_before=5.0,
    seconds_per_example=0.1,
    seconds_per_image=1.0,
    seconds_after=7.0,
    resolution=64,
    peak_bytes=1400,
)


def test_an_estimate_is_scaled_from_what_was_measured_and_says_so() -> None:
    plain = decided({"steps": 100, "batch_size": 4, "sample_every": 0, "validate_every": 0})
    assert seconds_of(plain, ENTRY, SPEED) == pytest.approx(5 + 100 * 4 * 0.1 + 7)
    assert "projects/default/trainings/t" in basis_of(ENTRY, SPEED)
    larger = plain.model_copy(update={"resolution": 128, "batch_size": 8})
    assert seconds_of(larger, ENTRY, SPEED) == pytest.approx(5 + 100 * 8 * 0.1 * 4 + 7)


def test_without_a_training_the_reference_is_named() -> None:
    assert "Xeon" in basis_of(ENTRY, None)
    assert 30 < seconds_of(decided(), ENTRY, None) < 300


def test_little_memory_takes_pictures_one_by_one_and_as_many_a_step() -> None:
    plain, sparing = decided(), decided({"preset": "low_memory"})
    assert (sparing.batch_size, sparing.gradient_accumulation) == (1, plain.batch_size)
    assert sparing.gradient_checkpointing == "always"
    assert (plain.pictures_at_once, sparing.pictures_at_once) == (8, 1)
    assert sparing.steps == plain.steps
    given = decided({"preset": "low_memory", "batch_size": 4})
    assert (given.batch_size, given.gradient_accumulation) == (4, 1)
