"""The recipe builds what is committed, and its losses and phases do what they say."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, ModelMixin, UNet2DConditionModel
from safetensors import safe_open
from torch import nn
from transformers import CLIPTokenizer

from base_models.catalog import BUNDLED, describe
from base_models.families.stable_diffusion import StableDiffusion
from base_models.toon_64.recipe import autoencoder, denoiser
from base_models.toon_64.recipe.pictures import Pictures
from base_models.toon_64.recipe.sliced_training import Plan, generator
from trainer_service.worker.weighting import loss_weights

COMMITTED = BUNDLED["toon-64"]
TINY = Plan(pictures=6, batch_size=2, learning_rate=1e-3)
NO_REPORT = print


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(COMMITTED / "tokenizer")


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    """Eight pictures of two styles: a square on a plain background."""
    bytes_NHWC = np.full((8, 64, 64, 3), 200, np.uint8)
    for index in range(8):
        bytes_NHWC[index, 8 : 20 + 4 * index, 16:40] = (20 * index, 90, 160)
    shown = [
        {"style": style, "extras": [], "background": "gray", "size": None, "tilt": None, "mirrored": False}
        for style in ("micah", "pixel") * 4
    ]
    return Pictures(bytes_NHWC, shown)


def shapes(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in module.state_dict().items()}


def committed_shapes(part: str) -> dict[str, list[int]]:
    (path,) = (COMMITTED / part).glob("*.safetensors")
    with safe_open(path, "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


def test_the_networks_are_those_that_are_committed(tokenizer: CLIPTokenizer) -> None:
    assert shapes(denoiser.build_unet()) == committed_shapes("unet")
    assert shapes(denoiser.build_text_encoder(tokenizer)) == committed_shapes("text_encoder")
    assert shapes(autoencoder.build()) == committed_shapes("vae")


@pytest.mark.parametrize(
    ("built", "kind", "folder"),
    [
        (denoiser.build_unet, UNet2DConditionModel, "unet"),
        (autoencoder.build, AutoencoderTiny, "vae"),
        (denoiser.build_scheduler, DDIMScheduler, "scheduler"),
    ],
)
def test_their_settings_are_those_that_are_committed(built: type, kind: type[ModelMixin], folder: str) -> None:
    # The scaling factor is measured, the names are of the file.
    own = {"scaling_factor", "_class_name", "_diffusers_version", "_name_or_path"}
    committed = {name: value for name, value in kind.load_config(COMMITTED / folder).items() if name not in own}
    config = json.loads(json.dumps(dict(built().config)))
    assert {name: config[name] for name in committed} == committed


def test_the_whole_model_is_at_most_30_megabytes_in_float16() -> None:
    assert sum(path.stat().st_size for path in COMMITTED.glob("*/*.safetensors")) < 30e6


def test_min_snr_weights_are_those_of_the_family() -> None:
    base = StableDiffusion(describe("toon-64", COMMITTED), torch.device("cpu"))
    timesteps_B = torch.tensor([0, 10, 300, 700, 999])
    alphas_B = base.pipeline.scheduler.alphas_cumprod[timesteps_B]
    expected_B = loss_weights(base.snr(timesteps_B), base.prediction, "min_snr", 5.0)
    assert torch.allclose(denoiser.min_snr_weights(alphas_B, 5.0), expected_B)


def test_an_error_in_a_detail_costs_more_than_on_a_plain_surface() -> None:
    pixels_BCHW = torch.zeros(1, 3, 64, 64)
    pixels_BCHW[..., 32, 32] = 1.0
    on_detail_BCHW, on_surface_BCHW = pixels_BCHW.clone(), pixels_BCHW.clone()
    on_detail_BCHW[..., 32, 32] -= 0.5
    on_surface_BCHW[..., 10, 10] -= 0.5
    cost = [autoencoder.reconstruction_loss(image, pixels_BCHW) for image in (on_detail_BCHW, on_surface_BCHW)]
    assert cost[0] > 1.5 * cost[1] > 0
    assert autoencoder.reconstruction_loss(pixels_BCHW, pixels_BCHW) == 0


def test_augmentation_moves_and_recolours_but_invents_nothing(pictures: Pictures) -> None:
    pixels_BCHW = pictures.pixels(torch.arange(2))
    changed = 0
    for step in range(20):
        augmented_BCHW = autoencoder.augmented(pixels_BCHW, generator(0, step))
        assert torch.equal(augmented_BCHW.flatten(1).sort().values, pixels_BCHW.flatten(1).sort().values)
        changed += not torch.equal(augmented_BCHW, pixels_BCHW)
    assert 5 < changed < 20


@pytest.mark.slow
def test_polishing_changes_the_decoder_alone(pictures: Pictures, tmp_path: Path) -> None:
    before, vae = autoencoder.load(COMMITTED / "vae"), autoencoder.load(COMMITTED / "vae")
    assert autoencoder.polish(vae, pictures, TINY, tmp_path / "checkpoint", 60.0, NO_REPORT)
    same = {
        part: all(torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))
        for part, old, new in (("encoder", before.encoder, vae.encoder), ("decoder", before.decoder, vae.decoder))
    }
    assert same == {"encoder": True, "decoder": False}
    assert vae.config.scaling_factor == before.config.scaling_factor


@pytest.mark.slow
def test_training_the_whole_autoencoder_measures_its_scaling_factor(pictures: Pictures, tmp_path: Path) -> None:
    vae = autoencoder.build()
    assert autoencoder.train_whole(vae, pictures, TINY, tmp_path / "checkpoint", 60.0, NO_REPORT)
    latents_NCHW = autoencoder.encode(vae, pictures, range(8)) * vae.config.scaling_factor
    assert latents_NCHW.std().item() == pytest.approx(1.0)
    vae.save_pretrained(tmp_path / "vae")
    again = autoencoder.load(tmp_path / "vae")
    assert again.config.scaling_factor == vae.config.scaling_factor
    assert torch.equal(autoencoder.encode(again, pictures, range(2)), autoencoder.encode(vae, pictures, range(2)))


def test_psnr_is_reported_by_style(pictures: Pictures) -> None:
    psnr = autoencoder.psnr_by_style(autoencoder.load(COMMITTED / "vae"), pictures, batch_size=3)
    assert psnr.keys() == {"micah", "pixel", "all"}
    assert psnr["all"] == pytest.approx((psnr["micah"] + psnr["pixel"]) / 2)
    assert psnr["all"] > 20


@pytest.mark.slow
def test_the_denoiser_learns_unet_and_text_encoder_together(
    pictures: Pictures, tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    unet, text_encoder = denoiser.build_unet(), denoiser.build_text_encoder(tokenizer)
    before = [value.detach().clone() for module in (unet, text_encoder) for value in module.parameters()]
    latents_NCHW = torch.randn(8, 4, 16, 16)
    checkpoint = tmp_path / "checkpoint"
    assert denoiser.train(
        unet, text_encoder, tokenizer, latents_NCHW, pictures.shown, TINY, checkpoint, 60.0, NO_REPORT
    )
    after = [value for module in (unet, text_encoder) for value in module.parameters()]
    unmoved = sum(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    # The zero biases of attention keys have no gradient: softmax does not see them.
    assert unmoved / len(before) < 0.05
