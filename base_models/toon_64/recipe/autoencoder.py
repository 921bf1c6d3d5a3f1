"""The autoencoder, 64 x 64 pixels to latents of 4 x 16 x 16: trained whole, then its decoder alone.

The second phase leaves the encoder, and with it what the denoiser has learned to make, untouched, while eyes, glasses
and mouths (1 to 3 pixels wide) get crisper. It can start from any AutoencoderTiny, the committed one for example.

Shapes: B batch, N pictures, C channels, H/W height and width. Pixels are in [-1, 1].
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from safetensors.torch import load_file
from torch import Tensor

from base_models.toon_64.recipe.pictures import STYLES, Pictures
from base_models.toon_64.recipe.sliced_training import Batch, Plan, Report, load_average, train_slice

WHOLE = Plan(
    pictures=240_000, batch_size=16, learning_rate=1e-3, warmup_pictures=3_000, weight_decay=1e-4, averaging=0.998
)
"""The first phase: encoder and decoder."""
POLISH = Plan(
    pictures=60_000, batch_size=8, learning_rate=6e-4, warmup_pictures=800, weight_decay=1e-4, averaging=0.998
)
"""The second phase: the decoder alone."""

# Standard deviation of the noise on unscaled latents (theirs is about 0.85); a picture gets a share of it, from 0 to 1.
# It makes near latents mean near pictures, as a denoiser needs, but noise to be smoothed away takes fine lines with it.
_NOISE = 0.07
_LATENT_PENALTY = 2e-3
_GRADIENT_WEIGHT = 0.5
_DETAIL_WEIGHT = 4.0
_DETAIL_WINDOW = 5


def build() -> AutoencoderTiny:
    """An untrained autoencoder of the bundled size: 0.65 million parameters, 48 channels everywhere."""
    return AutoencoderTiny(
        encoder_block_out_channels=(48, 48, 48),
        decoder_block_out_channels=(48, 48, 48),
        num_encoder_blocks=(1, 1, 2),
        num_decoder_blocks=(2, 2, 1),
        latent_channels=4,
        scaling_factor=1.0,
    )


def load(folder: Path) -> AutoencoderTiny:
    """A saved autoencoder of the bundled size, in float32. Raises RuntimeError where it is of another."""
    vae = build()
    vae.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
    vae.register_to_config(scaling_factor=json.loads((folder / "config.json").read_text())["scaling_factor"])
    return vae.eval()


def train_whole(
    vae: AutoencoderTiny, pictures: Pictures, plan: Plan, checkpoint: Path, slice_s: float, report: Report
) -> bool:
    """One slice of the first phase (see `train_slice`); leaves the averaged weights in `vae`. Returns whether done."""

    def loss(batch: Batch) -> Tensor:
        pixels_BCHW = augmented(pictures.pixels(batch.rows_B), batch.random).to(vae.device)
        latents_BCHW = vae.encoder(_channels_last(pixels_BCHW))
        decoded_BCHW = vae.decoder(_noisy(latents_BCHW, batch.random))
        return reconstruction_loss(decoded_BCHW, pixels_BCHW) + _LATENT_PENALTY * latents_BCHW.square().mean()

    vae.requires_grad_(True)
    trained = {"encoder": vae.encoder, "decoder": vae.decoder}
    done = train_slice(checkpoint, trained, plan, len(pictures), loss, slice_s, report)
    load_average(checkpoint, trained)
    vae.register_to_config(scaling_factor=scaling_factor(vae, pictures))
    return done


def polish(
    vae: AutoencoderTiny, pictures: Pictures, plan: Plan, checkpoint: Path, slice_s: float, report: Report
) -> bool:
    """One slice of the second phase: like `train_whole`, but the encoder and the scaling factor stay as they are."""

    def loss(batch: Batch) -> Tensor:
        pixels_BCHW = augmented(pictures.pixels(batch.rows_B), batch.random).to(vae.device)
        with torch.no_grad():
            latents_BCHW = vae.encoder(_channels_last(pixels_BCHW))
        return reconstruction_loss(vae.decoder(_noisy(latents_BCHW, batch.random)), pixels_BCHW)

    vae.encoder.requires_grad_(False).eval()
    vae.decoder.requires_grad_(True)
    trained = {"decoder": vae.decoder}
    done = train_slice(checkpoint, trained, plan, len(pictures), loss, slice_s, report)
    load_average(checkpoint, trained)
    return done


def reconstruction_loss(decoded_BCHW: Tensor, pixels_BCHW: Tensor) -> Tensor:
    """L1 + L2, more where a pixel differs from its surroundings, + half the L1 between the pictures' gradients.

    Almost all of a cartoon is flat colour: without the weight a blurred eye costs next to nothing.
    """
    around_BCHW = F.avg_pool2d(pixels_BCHW, _DETAIL_WINDOW, 1, _DETAIL_WINDOW // 2, count_include_pad=False)
    weight_B1HW = 1 + _DETAIL_WEIGHT * (pixels_BCHW - around_BCHW).abs().mean(1, keepdim=True)
    error_BCHW = decoded_BCHW - pixels_BCHW
    value = (weight_B1HW * (error_BCHW.abs() + error_BCHW.square())).mean()
    # The gradient of the error is the error of the gradient.
    return value + _GRADIENT_WEIGHT * (error_BCHW.diff(dim=-1).abs().mean() + error_BCHW.diff(dim=-2).abs().mean())


def augmented(pixels_BCHW: Tensor, random: torch.Generator) -> Tensor:
    """Colours, sides and places that the renderer never draws, in some batches: pictures of a user's own have them."""
    chance = torch.rand(4, generator=random).tolist()
    if chance[0] < 0.4:
        pixels_BCHW = pixels_BCHW[:, torch.randperm(3, generator=random)]
    if chance[1] < 0.3:
        pixels_BCHW = pixels_BCHW.flip(-1)
    if chance[2] < 0.1:
        pixels_BCHW = pixels_BCHW.flip(-2)
    if chance[3] < 0.3:
        shift = torch.randint(-16, 17, (2,), generator=random).tolist()
        pixels_BCHW = pixels_BCHW.roll(shift, (2, 3))
    return pixels_BCHW


@torch.no_grad()
def encode(vae: AutoencoderTiny, pictures: Pictures, rows: Sequence[int], batch_size: int = 100) -> Tensor:
    """Unscaled latents_NCHW of these rows, on the CPU."""
    batches = _batches(pictures, rows, batch_size)
    latents_NCHW = torch.cat([vae.encoder(_channels_last(pixels_BCHW.to(vae.device))).cpu() for pixels_BCHW in batches])
    return latents_NCHW.contiguous()


def scaling_factor(vae: AutoencoderTiny, pictures: Pictures) -> float:
    """What latents are multiplied by so that their standard deviation is one."""
    return 1 / encode(vae, pictures, range(min(len(pictures), 2_000))).std().item()


@torch.no_grad()
def psnr_by_style(vae: AutoencoderTiny, pictures: Pictures, batch_size: int = 100) -> dict[str, float]:
    """Peak signal-to-noise ratio of decoded pictures in dB, for each style and, as `all`, for all of them.

    Each is a mean over the PSNR of single pictures.
    """
    values = []
    for pixels_BCHW in _batches(pictures, range(len(pictures)), batch_size):
        pixels_BCHW = pixels_BCHW.to(vae.device)
        decoded_BCHW = vae.decoder(vae.encoder(_channels_last(pixels_BCHW))).clamp(-1, 1)
        # The range of pixels is 2, so the peak's square is 4.
        values.append(
            -10 * torch.log10((decoded_BCHW - pixels_BCHW).square().mean((1, 2, 3)).clamp_min(1e-12) / 4).cpu()
        )
    psnr_N = torch.cat(values)
    styles = [shown["style"] for shown in pictures.shown]
    by_style = {
        style: psnr_N[torch.tensor([word == style for word in styles])].mean().item()
        for style in STYLES
        if style in styles
    }
    return by_style | {"all": psnr_N.mean().item()}


def _batches(pictures: Pictures, rows: Sequence[int], batch_size: int) -> Iterator[Tensor]:
    for first in range(0, len(rows), batch_size):
        yield pictures.pixels(torch.tensor(rows[first : first + batch_size]))


def _noisy(latents_BCHW: Tensor, random: torch.Generator) -> Tensor:
    share_B111 = torch.rand((len(latents_BCHW), 1, 1, 1), generator=random)
    noise_BCHW = torch.randn(latents_BCHW.shape, generator=random)
    return latents_BCHW + (_NOISE * share_B111 * noise_BCHW).to(latents_BCHW.device)


def _channels_last(pixels_BCHW: Tensor) -> Tensor:
    return pixels_BCHW.contiguous(memory_format=torch.channels_last)
