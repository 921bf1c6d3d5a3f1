"""The family on a small random copy of Stable Diffusion 1.5's architecture: AutoencoderKL, epsilon prediction, PNDM.

The tokenizer is toon-64's, since the original cannot be had without a hub.
"""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from base_models.adapters.adapter_file import write_adapter
from base_models.catalog import BUNDLED, BaseModelEntry, read_allow_list
from base_models.families.stable_diffusion import StableDiffusion
from trainer_service.training_config import decide
from trainer_service.worker.autocast import accelerator_for
from trainer_service.worker.examples import Examples, encode, encode_empty_prompt
from trainer_service.worker.proof import make_probe, prove
from trainer_service.worker.training_loop import Learned, train

WIDTH = 32


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> BaseModelEntry:
    """A saved pipeline, as an operator would allow it."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(BUNDLED["toon-64"] / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(WIDTH, 2 * WIDTH),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder: Path = tmp_path_factory.mktemp("sd15")
    pipeline.save_pretrained(folder)
    return read_allow_list([f"sd15={folder}"])["sd15"]


@pytest.fixture(scope="module")
def base(entry: BaseModelEntry) -> StableDiffusion:
    return StableDiffusion(entry, torch.device("cpu"))


def test_what_can_be_asked_of_it_is_read_from_its_files(entry: BaseModelEntry) -> None:
    sizes = (entry.default_size, entry.min_size, entry.max_size, entry.size_step, entry.max_prompt_tokens)
    assert sizes == (32, 16, 64, 4, 38)
    assert (entry.training.targets, entry.generation.scheduler) == ("attention", "dpm_solver_multistep")


def test_latents_are_the_mean_of_the_posterior_in_the_units_of_the_unet(base: StableDiffusion) -> None:
    pixels_BCHW = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        latents_BCHW = base.encode_images(pixels_BCHW)
        posterior = base.pipeline.vae.encode(pixels_BCHW).latent_dist
        decoded_BCHW = base.decode_latents(latents_BCHW)
    assert torch.equal(latents_BCHW, posterior.mean * base.pipeline.vae.config.scaling_factor)
    assert decoded_BCHW.shape == pixels_BCHW.shape


def test_it_predicts_noise(base: StableDiffusion) -> None:
    latents_BCHW, noise_BCHW = torch.randn(2, 2, 4, 16, 16)
    timesteps_B = torch.tensor([10, 900])
    assert torch.equal(base.target(latents_BCHW, noise_BCHW, timesteps_B), noise_BCHW)
    assert base.prediction == "epsilon"


@pytest.mark.parametrize("targets", ["attention", "attention_and_convolution", "all"])
def test_it_trains_and_its_adapter_is_proven(base: StableDiffusion, entry: BaseModelEntry, targets: str) -> None:
    given = {"steps": 3, "batch_size": 2, "learning_rate": 0.05, "precision": "float32", "targets": targets}
    config = decide(given | {"sample_every": 0}, entry, seed=1, images=3, subject="a picture of sks person")
    pictures = list(torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    prompts = [f"a picture of sks person, {word}" for word in ("happy", "sad", "neutral")]
    subject = encode(base, pictures, prompts, [None] * 3, lambda done, total: None)
    probe = make_probe(base, subject)
    examples = Examples(subject, subject, encode_empty_prompt(base), prior=None)
    for moment in train(base, examples, config, accelerator_for(config, torch.device("cpu")), None, lambda step: False):
        if isinstance(moment, Learned):
            body = write_adapter(moment.adapter, config.alpha / config.rank)
            trained_BCHW = probe.predictions(base)
    prove(base, body, probe, trained_BCHW)


def test_class_pictures_come_from_its_own_pipeline(base: StableDiffusion) -> None:
    pictures_BCHW = base.generate(["a picture of a person"] * 2, [0, 1], 32)
    assert pictures_BCHW.shape == (2, 3, 32, 32)
    assert pictures_BCHW.abs().max() <= 1
    assert not torch.equal(pictures_BCHW[0], pictures_BCHW[1])


def test_each_prompt_is_drawn_with_its_own_seed(base: StableDiffusion) -> None:
    prompts = ["a picture of a person", "a hat"]
    together_BCHW = base.generate(prompts, [3, 4], 32)
    for row, prompt in enumerate(prompts):
        alone_1CHW = base.generate([prompt], [3 + row], 32)
        assert torch.allclose(together_BCHW[row], alone_1CHW[0], atol=1e-3)
    assert not torch.allclose(base.generate(prompts[::-1], [3, 4], 32), together_BCHW, atol=1e-3)


def test_drawing_can_be_interrupted_after_every_step(base: StableDiffusion, entry: BaseModelEntry) -> None:
    class Enough(Exception):
        pass

    steps = []

    def stop_at_three() -> None:
        steps.append(len(steps))
        if len(steps) == 3:
            raise Enough

    with pytest.raises(Enough):
        base.generate(["a hat"], [0], 32, stop_at_three)
    assert len(steps) == 3
    base.generate(["a hat"], [0], 32, lambda: steps.append(len(steps)))
    assert len(steps) >= 3 + entry.generation.steps
