"""FLUX.2's own: how long a prompt may be, which layers a training changes, what its files say of it."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import Flux2Transformer2DModel
from peft import LoraConfig, inject_adapter_in_model

from base_models.traits.family_traits import Configs, TargetsName
from base_models.traits.flux_2 import TRAITS
from tests.families.synthetic_tokenizers import qwen_tokenizer


def test_the_longest_prompt_and_the_chat_template_fill_what_the_pipeline_reads() -> None:
    tokenizer = qwen_tokenizer(131072)
    longest = TRAITS.longest_prompt(tokenizer.model_max_length)
    prompt = " ".join(["cat"] * longest)
    assert len(tokenizer(prompt).input_ids) == longest
    asked = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert len(tokenizer(text).input_ids) == 512


@pytest.mark.parametrize(("double", "single"), [(5, 20), (8, 24)])
@pytest.mark.parametrize(("targets", "of_double"), [("attention", 4), ("all", 12)])
def test_a_training_changes_every_block_of_the_published_sizes(
    double: int, single: int, targets: TargetsName, of_double: int
) -> None:
    with torch.device("meta"):
        thin = Flux2Transformer2DModel(
            num_layers=double, num_single_layers=single, num_attention_heads=1, attention_head_dim=8
        )
        adapted = inject_adapter_in_model(LoraConfig(target_modules=TRAITS.targets[targets]), thin)
    layers = [name for name in adapted.state_dict() if name.endswith("lora_A.default.weight")]
    assert len(layers) == of_double * double + 2 * single


@pytest.mark.parametrize(
    ("double", "single", "name", "version"),
    [
        (5, 20, "Flux.2-klein-4b", "flux_2_klein_4b"),
        (8, 24, "Flux.2-klein-9b", "flux_2_klein_9b"),
        (5, 24, "", ""),
    ],
)
def test_only_a_published_size_has_a_published_name(
    double: int, single: int, name: str, version: str, tmp_path: Path
) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(
        json.dumps({"num_layers": double, "num_single_layers": single})
    )
    found = TRAITS.architecture(Configs(tmp_path))
    assert (found.name, found.base_model_version, found.prediction_type) == (name, version, None)


@pytest.mark.parametrize(
    ("index", "guidance", "steps", "scale"),
    [
        ({"is_distilled": True}, "none", 4, 1.0),
        ({"is_distilled": False}, "classifier_free", 50, 4.0),
        ({}, "classifier_free", 50, 4.0),
    ],
)
def test_the_index_says_whether_it_is_guided(
    index: dict[str, bool], guidance: str, steps: int, scale: float, tmp_path: Path
) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    configs = Configs(tmp_path)
    defaults = TRAITS.preset(configs).generation
    assert (TRAITS.guidance(configs), defaults.steps, defaults.guidance_scale) == (guidance, steps, scale)
