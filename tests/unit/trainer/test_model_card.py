"""The model card: what it says, and that callers' words stay words."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from service_kit.adapter_manifest import AdapterManifest, ArtifactEntry, ConsentEntry, EvaluationEntry
from trainer_service.model_card import model_card

FILE = ArtifactEntry(artifact_id="adapter.safetensors", media_type="", size_bytes=1, digest="f" * 64)


def _manifest(**changes: Any) -> AdapterManifest:
    values: dict[str, Any] = {
        "project": "default",
        "adapter": "my-cat",
        "version": 3,
        "base_model": "toon-64",
        "base_model_digest": "b" * 64,
        "training": "projects/default/trainings/t",
        "dataset_digest": "d" * 64,
        "trigger_word": "sks",
        "class_noun": "character",
        "rank": 8,
        "targets": "attention_and_convolution",
        "training_config": {"steps": 140, "learning_rate": 0.005},
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "artifacts": (FILE,),
        "evaluation": EvaluationEntry(judge="toon", likeness=0.8, memorisation=0.0),
        "image_count": 16,
        "chosen_step": 120,
        "validation_loss": 0.0123,
        "licence": "CC-BY-4.0",
        "consent": ConsentEntry(given_by="Ada Lovelace", purpose="a comic", evidence="signed"),
    }
    return AdapterManifest(**(values | changes))


def _front_matter(card: str) -> dict[str, Any]:
    _, front, _ = card.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(front)
    return found


def _cells(card: str) -> dict[str, str]:
    rows = [row.replace("\\|", "").split("|") for row in card.splitlines() if row.startswith("| ")]
    assert all(len(row) == 4 for row in rows)
    return {row[1].strip(): row[2].strip() for row in rows}


def test_hubs_read_what_it_is_and_people_what_was_done() -> None:
    card = model_card(_manifest())
    assert _front_matter(card) == {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "base_model": "toon-64",
        "instance_prompt": "a picture of sks character",
        "tags": ["text-to-image", "stable-diffusion", "lora", "dreambooth"],
        "license": "cc-by-4.0",
    }
    cells = _cells(card)
    assert cells["adapter"] == "`projects/default/adapters/my-cat/versions/3`"
    assert cells["pictures"] == "16, digest `dddddddddddddddd`"
    assert (cells["steps"], cells["learning_rate"]) == ("`140`", "`0.005`")
    measured = {name.partition(":")[0]: value for name, value in cells.items()}
    assert (measured["likeness"], measured["memorisation"], measured["validation loss"]) == (
        "0.800",
        "0.000",
        "0.01230",
    )
    assert "obedience" not in measured
    assert "step 120" in card
    assert "Ada" not in card


def test_what_is_not_known_is_not_said() -> None:
    card = model_card(
        _manifest(evaluation=None, validation_loss=None, training_config={}, licence="", image_count=0, chosen_step=0)
    )
    assert "measured" not in card
    assert "How it was trained" not in card
    assert "licen" not in card
    assert "None" not in card


@pytest.mark.parametrize(
    "words", ["a | b", "`x` ``` | y", "[x](y)<script>", '"quoted": ~', "---", "\\|", "| --- |", "ü"]
)
def test_a_callers_words_stay_words(words: str) -> None:
    card = model_card(_manifest(class_noun=words, licence=words))
    front = _front_matter(card)
    assert front["instance_prompt"] == f"a picture of sks {words}"
    assert (front["license"], front["license_name"]) == ("other", words)
    assert _cells(card)["trigger word"] == "`sks`"
    # What stands as code needs no escape.
    prose = re.sub(r"```.*?\n```|`[^`]*`", "", card.split("---\n", 2)[2], flags=re.DOTALL)
    assert "<script>" not in prose
    assert "[x](y)" not in prose


def test_a_dora_is_called_one() -> None:
    card = model_card(_manifest(training_config={"adapter_type": "dora"}))
    assert "A DoRA of rank 8" in card
    assert "dora" in _front_matter(card)["tags"]


def test_an_adapter_of_sdxl_says_how_it_is_loaded() -> None:
    card = model_card(_manifest(pipeline="StableDiffusionXLPipeline"))
    assert "from diffusers import StableDiffusionXLPipeline\n" in card
    assert "pipeline = StableDiffusionXLPipeline.from_pretrained(" in card
    assert "stable-diffusion-xl" in _front_matter(card)["tags"]
