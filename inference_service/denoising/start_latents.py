"""Starting from a picture instead of noise, and keeping what its mask leaves alone: SDEdit and blended diffusion.

Pure functions of tensors, the same for every scheduler. A step i begins at a signal scale a_i and a noise scale s_i, in
which the picture's latents z, with the image's own noise e, stand at

    x_i = a_i z + s_i e

in the scheduler's own space: (sqrt(abar_t), sqrt(1 - abar_t)) at the step's timestep t for DDIM, the same from sigma
for DPM-Solver++ (a = 1 / sqrt(1 + sigma^2), s = a sigma), (1, sigma) for Euler, and (1 - sigma, sigma) for Euler of a
rectified flow. After the last step a = 1, s = 0.
They are those of the timestep that step i gives the model, which for DDIM with uneven timesteps is not quite where step
i - 1 ends; diffusers' pipelines count so, and so do these.

e is the first thing drawn from the image's seed, as for an image from noise. diffusers' pipelines draw a sample of an
AutoencoderKL's posterior before it; here z is the posterior's mean, so that equal seeds mean equal noise, with a
picture or without. AutoencoderTiny has no posterior.

Of n steps, those that a strength asks for are n * strength, rounded down, for every family. diffusers' pipelines of SD3
and FLUX.1 round up, and so run one more where that is no whole number; those of Stable Diffusion and SDXL round down.

A multistep scheduler begins at its first step with no history, whichever that is: DPM-Solver++ takes step
`first_step` in first order. Keeping what is outside the mask touches the state only, never the history.

Shapes: B batch, C channels, H/W height and width of latents; scales are one a row.
"""

import torch
from torch import Tensor


def noised(latents_BCHW: Tensor, noise_BCHW: Tensor, signal_B: Tensor, noise_B: Tensor) -> Tensor:
    """Latents of a picture as they stand where a step begins: a z + s e (Song et al. 2020, eq. 4; SDEdit, alg. 1).

    Where a masked request has strength 1, diffusers begins at noise alone, as without a picture: signal 0 and the
    scheduler's `init_noise_sigma`. Without a mask it begins here at any strength.
    """
    return _rows(signal_B) * latents_BCHW + _rows(noise_B) * noise_BCHW


def outside_kept(
    latents_BCHW: Tensor,
    picture_BCHW: Tensor,
    noise_BCHW: Tensor,
    mask_B1HW: Tensor,
    signal_B: Tensor,
    noise_B: Tensor,
) -> Tensor:
    """What a step left, with the picture put back where the mask is 0 (Avrahami et al. 2022, blended latent diffusion).

    signal_B, noise_B: scales where the *next* step begins; 1 and 0 after the last. A row whose mask is 1 everywhere
    comes back as it was.
    """
    kept_BCHW = noised(picture_BCHW, noise_BCHW, signal_B, noise_B)
    return (1 - mask_B1HW) * kept_BCHW + mask_B1HW * latents_BCHW


def mask_of_latents(mask_HW: Tensor, height: int, width: int) -> Tensor:
    """A mask of pixels, of 0 and 1, by cells of the latents, as mask_1HW: each is its upper left pixel."""
    return torch.nn.functional.interpolate(mask_HW[None, None], size=(height, width))[0]


def pixels_of(picture_HWC: Tensor) -> Tensor:
    """A picture of uint8 as an autoencoder takes it: pixels_1CHW, float32 in [-1, 1]."""
    return (picture_HWC.permute(2, 0, 1)[None].to(torch.float32) / 255) * 2 - 1


def _rows(scale_B: Tensor) -> Tensor:
    return scale_B[:, None, None, None]
