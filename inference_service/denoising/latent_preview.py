"""What an image looks like so far, without the autoencoder: colours as a linear function of the latents at each place.

Its one rule: the map is fitted to the base model itself, so a new family needs no table of numbers.

Shapes: N pictures, P places, C latent channels, H/W height and width. Pixels are in [-1, 1] until they are drawn.
"""

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from base_models.family import BaseModel

_PICTURES = 16
_GROUP = 4
_SIDE = 128
# Keeps the map finite and small along latent directions that smooth pictures never use.
_RIDGE = 1e-4
_ENLARGED = 4
_MAX_SIDE = 256


class LatentPreview:
    """Draws latents: RGB = latents_C @ map_C3 + bias_3 at each place."""

    def __init__(self, map_C3: Tensor, bias_3: Tensor) -> None:
        self._map_C3, self._bias_3 = map_C3, bias_3

    @classmethod
    def fit(cls, base_model: "BaseModel") -> Self:
        """Least squares from the latents of smooth pictures to the same pictures at the latents' resolution.

        The pictures are drawn with a fixed seed, so the same base model always gives the same map.
        """
        pixels_NCHW = _smooth_pictures()
        with torch.no_grad():
            latents_NCHW = torch.cat([base_model.encode_images(group).cpu() for group in pixels_NCHW.split(_GROUP)])
        wanted_P3 = _places(adaptive_avg_pool2d(pixels_NCHW, latents_NCHW.shape[-2:]))
        latents_PC = _places(latents_NCHW)
        known_PC = torch.cat([latents_PC, torch.ones_like(latents_PC[:, :1])], dim=1)
        squares_CC = known_PC.T @ known_PC / len(known_PC) + _RIDGE * torch.eye(known_PC.shape[1]).double()
        solved_C3 = torch.linalg.solve(squares_CC, known_PC.T @ wanted_P3 / len(known_PC)).float()
        return cls(solved_C3[:-1], solved_C3[-1])

    def draw(self, x0_CHW: Tensor) -> "NDArray[numpy.uint8]":
        """Small pixels_HWC, RGB, of latents that are meant to be clean: four times their size, at most 256 a side.

        x0_CHW: on the scale of `BaseModel.encode_images`, on any device; it is waited for.
        """
        pixels_HWC = x0_CHW.float().cpu().movedim(0, -1) @ self._map_C3 + self._bias_3
        factor = min(_ENLARGED, _MAX_SIDE / max(pixels_HWC.shape[:2]))
        height, width = (max(1, round(side * factor)) for side in pixels_HWC.shape[:2])
        enlarged_BCHW = interpolate(pixels_HWC.movedim(-1, 0)[None], (height, width), mode="bilinear")
        levels_HWC = (enlarged_BCHW[0].movedim(0, -1).clamp(-1, 1) + 1) * 127.5
        drawn: NDArray[numpy.uint8] = levels_HWC.round().to(torch.uint8).numpy()
        return drawn


def _smooth_pictures() -> Tensor:
    """Pictures_NCHW: one half plain colours, the other blends of a colour in each corner."""
    generator = torch.Generator().manual_seed(0)
    plain_N311 = torch.rand(_PICTURES // 2, 3, 1, 1, generator=generator) * 2 - 1
    corners_N322 = torch.rand(_PICTURES // 2, 3, 2, 2, generator=generator) * 2 - 1
    blends_NCHW = interpolate(corners_N322, (_SIDE, _SIDE), mode="bilinear", align_corners=True)
    return torch.cat([plain_N311.expand(-1, -1, _SIDE, _SIDE), blends_NCHW])


def _places(values_NCHW: Tensor) -> Tensor:
    """Values_PC in double precision: every place of every picture."""
    return values_NCHW.double().movedim(1, -1).flatten(0, 2)
