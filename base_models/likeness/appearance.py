"""What a picture looks like as a whole, whatever it is of: for telling copies.

Shapes: B batch, C channels, H/W height and width, E features. Pixels are in [-1, 1].
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_SIZE = 32


def edges(pixels_BCHW: Tensor) -> Tensor:
    """Features_BE: the edges at 32 x 32, as the square root of how steep they are, so that faint ones count too.

    Not the pixels: their distance is decided by the background, and any picture on a background that training used
    would look like a copy. Scaled so that a distance is the root mean square difference of the values.
    """
    small_BCHW = resized(pixels_BCHW, _SIZE)
    across_BCHW = small_BCHW[:, :, 1:, 1:] - small_BCHW[:, :, 1:, :-1]
    down_BCHW = small_BCHW[:, :, 1:, 1:] - small_BCHW[:, :, :-1, 1:]
    edges_BE = (across_BCHW.square() + down_BCHW.square()).sum(1).pow(0.25).flatten(1)
    return edges_BE / edges_BE.shape[1] ** 0.5


def resized(pixels_BCHW: Tensor, size: int) -> Tensor:
    """Square pictures at another size."""
    if pixels_BCHW.shape[-1] == size:
        return pixels_BCHW
    return functional.interpolate(pixels_BCHW, size=(size, size), mode="bilinear", antialias=True)


def squares(pictures: Sequence[Tensor], size: int) -> Tensor:
    """Pixels_NCHW: the middle square of each of these pixels_CHW."""
    found = []
    for pixels_CHW in pictures:
        height, width = pixels_CHW.shape[-2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        found.append(resized(pixels_CHW[None, :, top : top + side, left : left + side], size))
    return torch.cat(found)
