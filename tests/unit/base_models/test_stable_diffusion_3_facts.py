"""What is known of the published Stable Diffusion 3 and 3.5 from their configurations alone; no weights, no torch."""

import json
from pathlib import Path
from typing import Any

import pytest

from base_models.catalog import BaseModelEntry, describe

MEDIUM = {"num_layers": 24, "pos_embed_max_size": 192}
LARGE_35 = {"num_layers": 38, "pos_embed_max_size": 192, "qk_norm": "rms_norm", "dual_attention_layers": []}
MEDIUM_35 = {"num_layers": 24, "pos_embed_max_size": 384, "qk_norm": "rms_norm", "dual_attention_layers": [0, 1]}


def published(folder: Path, transformer: dict[str, Any], has_t5: bool = True) -> BaseModelEntry:
    """Of a folder that holds what is read of one."""
    kind = ["transformers", "T5EncoderModel"] if has_t5 else [None, None]
    configs = {
        "model_index.json": {"_class_name": "StableDiffusion3Pipeline", "text_encoder_3": kind},
        "transformer/config.json": {"sample_size": 128, "patch_size": 2, **transformer},
        "vae/config.json": {"block_out_channels": [128, 256, 512, 512]},
        "tokenizer/tokenizer_config.json": {"model_max_length": 77},
        "tokenizer_2/tokenizer_config.json": {"model_max_length": 77},
    }
    if has_t5:
        configs["tokenizer_3/tokenizer_config.json"] = {"model_max_length": 512}
    for path, config in configs.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(json.dumps(config))
    return describe("mine", folder)


@pytest.mark.parametrize(
    ("transformer", "name", "version", "steps", "guidance_scale"),
    [
        (MEDIUM, "stable-diffusion-v3-medium", "3-medium", 28, 7.0),
        (LARGE_35, "stable-diffusion-v3.5-large", "3-5-large", 28, 3.5),
        (MEDIUM_35, "stable-diffusion-v3.5-medium", "3-5-medium", 40, 4.5),
        (MEDIUM | {"num_layers": 12}, "mine", "mine", 28, 7.0),
    ],
)
def test_each_is_known_by_its_transformer(
    tmp_path: Path, transformer: dict[str, Any], name: str, version: str, steps: int, guidance_scale: float
) -> None:
    entry = published(tmp_path, transformer)
    found = entry.architecture()
    assert (found.name, found.base_model_version, found.prediction_type) == (name, version, None)
    assert (entry.generation.steps, entry.generation.guidance_scale) == (steps, guidance_scale)
    assert entry.is_guided(guidance_scale)


@pytest.mark.parametrize(("places", "largest"), [(384, 2048), (192, 2048), (96, 1536)])
def test_no_side_has_more_patches_than_the_transformer_knows_places(tmp_path: Path, places: int, largest: int) -> None:
    entry = published(tmp_path, MEDIUM | {"pos_embed_max_size": places})
    assert (entry.min_size, entry.default_size, entry.max_size, entry.size_step) == (512, 1024, largest, 16)


def test_t5_limits_prompts_and_clip_does_where_there_is_no_t5(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "less").mkdir()
    whole, less = published(tmp_path / "whole", MEDIUM), published(tmp_path / "less", MEDIUM, has_t5=False)
    assert whole.max_prompt_tokens == 255
    assert [folder.name for folder in whole.tokenizer_folders] == ["tokenizer_3"]
    assert less.max_prompt_tokens == 75
    assert [folder.name for folder in less.tokenizer_folders] == ["tokenizer", "tokenizer_2"]
