"""The SDXL family on a small random copy of its architecture, against the plain diffusers pipeline."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from base_models.catalog import BaseModelEntry, CatalogError, describe
from base_models.families.stable_diffusion import StableDiffusion
from base_models.families.stable_diffusion_xl import StableDiffusionXL
from base_models.loading import load_base_model
from base_models.prompt_tokens import PromptTokens
from base_models.traits.family_traits import Architecture
from tests.benchmarks.random_base_model import write_tiny

PROMPTS = ["a picture of a person, happy, on a beach", "a hat"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tiny_sdxl: BaseModelEntry) -> Any:
    return load_base_model(tiny_sdxl, CPU)


@pytest.fixture(scope="module")
def plain(tiny_sdxl: BaseModelEntry) -> Any:
    """The pipeline as anybody loads it."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl.folder, dtype=torch.float32, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_the_family_is_chosen_by_the_pipeline_that_the_folder_names(base: Any, tmp_path: Path) -> None:
    assert isinstance(base, StableDiffusionXL)
    write_tiny(tmp_path)
    other = load_base_model(describe("x", tmp_path), CPU)
    assert isinstance(other, StableDiffusion)
    assert list(other.adaptable) == ["unet", "text_encoder"]


def test_what_can_be_asked_of_it_is_read_from_its_files(tiny_sdxl: BaseModelEntry) -> None:
    assert tiny_sdxl.pipeline == "StableDiffusionXLPipeline"
    assert (tiny_sdxl.default_size, tiny_sdxl.min_size, tiny_sdxl.max_size, tiny_sdxl.size_step) == (64, 32, 128, 32)
    assert tiny_sdxl.max_prompt_tokens == 75
    assert (tiny_sdxl.training.rank, tiny_sdxl.training.targets, tiny_sdxl.training.learning_rate) == (
        16,
        "attention",
        1e-4,
    )
    assert (tiny_sdxl.generation.steps, tiny_sdxl.generation.scheduler) == (30, "euler")
    # No published width: it is called by its own name.
    assert tiny_sdxl.architecture() == Architecture("sdxl", "sdxl", "epsilon")


def test_a_folder_without_its_second_tokenizer_is_refused(tiny_sdxl: BaseModelEntry, tmp_path: Path) -> None:
    for part in ("unet", "vae", "tokenizer", "model_index.json"):
        (tmp_path / part).symlink_to(tiny_sdxl.folder / part)
    with pytest.raises(CatalogError, match="tokenizer_2"):
        describe("sdxl", tmp_path)


def test_tokens_are_counted_by_the_tokenizer_that_needs_most(tiny_sdxl: BaseModelEntry, tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    for part in tiny_sdxl.folder.iterdir():
        if part.name != "tokenizer_2":
            (tmp_path / part.name).symlink_to(part)
    second = CLIPTokenizer.from_pretrained(tiny_sdxl.folder / "tokenizer_2")
    # Without any merges every letter is a token.
    letters = {word: place for word, place in second.get_vocab().items() if len(word.removesuffix("</w>")) == 1}
    words = [*letters, second.bos_token, second.eos_token]
    CLIPTokenizer(vocab={word: place for place, word in enumerate(words)}, merges=[]).save_pretrained(
        tmp_path / "tokenizer_2", model_max_length=77
    )
    config = tmp_path / "tokenizer_2" / "tokenizer_config.json"
    config.write_text(config.read_text().replace("1000000000000000019884624838656", "40"))
    spelled = describe("sdxl", tmp_path)
    assert spelled.max_prompt_tokens == 38
    assert PromptTokens(spelled).count("happy hat") == 8
    assert PromptTokens(tiny_sdxl).count("happy hat") < 8


def test_prompts_are_encoded_as_the_pipeline_does(base: Any, plain: Any) -> None:
    conditioning = base.encode_prompts([*PROMPTS, ""])
    with torch.no_grad():
        prompt_BTD, negative_BTD, pooled_BD, negative_BD = plain.encode_prompt(PROMPTS)
    assert torch.equal(conditioning["prompt_BTD"][:2], prompt_BTD)
    assert torch.equal(conditioning["pooled_BD"][:2], pooled_BD)
    assert torch.allclose(conditioning["prompt_BTD"][2], negative_BTD[0], atol=1e-5)
    assert torch.allclose(conditioning["pooled_BD"][2], negative_BD[0], atol=1e-5)
    assert conditioning["prompt_BTD"].shape == (3, 77, 16 + 24)


def test_every_row_is_predicted_at_its_own_timestep_and_of_its_own_prompt(base: Any, plain: Any) -> None:
    noisy_BCHW = torch.randn(3, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    timesteps_B = torch.tensor([5, 500, 999])
    with torch.no_grad():
        conditioning = base.encode_prompts([*PROMPTS, ""])
        found_BCHW = base.predict(noisy_BCHW, timesteps_B, conditioning)
        for row, timestep in enumerate(timesteps_B):
            told = {
                "text_embeds": conditioning["pooled_BD"][row, None],
                # Height before width, in pixels.
                "time_ids": torch.tensor([[64.0, 96.0, 0.0, 0.0, 64.0, 96.0]]),
            }
            wanted_1CHW = plain.unet(
                noisy_BCHW[row, None], timestep, conditioning["prompt_BTD"][row, None], added_cond_kwargs=told
            ).sample
            assert torch.allclose(found_BCHW[row], wanted_1CHW[0], atol=1e-5)
