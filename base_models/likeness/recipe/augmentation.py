"""What training does to renders, so that the judges also read what a small diffusion model paints.

Shapes: B batch, C channels, H/W height and width. Pixels are in [-1, 1].
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

_PERMUTATIONS = torch.tensor([(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])


def soften(pixels_BCHW: Tensor, random: torch.Generator, strength: float = 1.0) -> Tensor:
    """Blur each picture by its own share, move it by up to 3 pixels, change its brightness, add noise.

    strength: 0 to 1, of blur and noise.
    """
    count = len(pixels_BCHW)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand((count, 1, 1, 1), generator=random)

    blurred = functional.avg_pool2d(functional.pad(pixels_BCHW, (1, 1, 1, 1), mode="replicate"), 3, 1)
    # The square leaves most pictures nearly sharp.
    pixels_BCHW = torch.lerp(pixels_BCHW, blurred, strength * uniform(0, 1).square())
    padded = functional.pad(pixels_BCHW, (3, 3, 3, 3), mode="replicate")
    y, x = torch.randint(0, 7, (2,), generator=random).tolist()
    moved = padded[:, :, y : y + pixels_BCHW.shape[2], x : x + pixels_BCHW.shape[3]]
    noise = torch.randn(moved.shape, generator=random) * uniform(0, 0.08 * strength)
    return moved * uniform(0.9, 1.05) + uniform(-0.05, 0.05) + noise


def smear(pixels_BCHW: Tensor, random: torch.Generator) -> Tensor:
    """Stretch each picture out of shape by some pixels, in one round part of it: what a face must not look like."""
    count, _, height, width = pixels_BCHW.shape
    strength_B111 = 0.12 + 0.18 * torch.rand((count, 1, 1, 1), generator=random)
    coarse_B2hw = torch.randn((count, 2, 8, 8), generator=random) * strength_B111
    shift_B2HW = functional.interpolate(coarse_B2hw, size=(height, width), mode="bilinear", align_corners=False)
    y_HW, x_HW = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    centre_B2 = torch.rand((count, 2), generator=random) - 0.5
    squared_BHW = (x_HW - centre_B2[:, :1, None]).square() + (y_HW - centre_B2[:, 1:, None]).square()
    inside_BHW = torch.exp(-squared_BHW / 0.2)
    grid_BHW2 = torch.stack([x_HW, y_HW], -1) + (shift_B2HW * inside_BHW[:, None]).permute(0, 2, 3, 1)
    return functional.grid_sample(pixels_BCHW, grid_BHW2, padding_mode="border", align_corners=True)


def recolour(pixels_BCHW: Tensor, group_size: int, random: torch.Generator) -> Tensor:
    """Exchange the colour channels, in one way for each `group_size` pictures: a character's views become another's."""
    choices = torch.randint(0, len(_PERMUTATIONS), (len(pixels_BCHW) // group_size,), generator=random)
    channels_BC = _PERMUTATIONS[choices].repeat_interleave(group_size, 0)
    return pixels_BCHW[torch.arange(len(pixels_BCHW))[:, None], channels_BC]


def _thicken(pixels_BCHW: Tensor) -> Tensor:
    return -functional.max_pool2d(-pixels_BCHW, 3, 1, 1)


def _thin(pixels_BCHW: Tensor) -> Tensor:
    return functional.max_pool2d(pixels_BCHW, 3, 1, 1)


def _pixelate(pixels_BCHW: Tensor) -> Tensor:
    return functional.interpolate(functional.avg_pool2d(pixels_BCHW, 4), scale_factor=4.0)


def _emboss(pixels_BCHW: Tensor) -> Tensor:
    return (pixels_BCHW * 0.6 + (pixels_BCHW - torch.roll(pixels_BCHW, (1, 1), (2, 3)))).clamp(-1, 1)


def _invert(pixels_BCHW: Tensor) -> Tensor:
    return -pixels_BCHW


RESTYLINGS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda pixels: pixels,
    _thicken,
    _thin,
    _pixelate,
    _emboss,
    _invert,
)
"""Ways to draw a style differently; each makes another style of it."""
