"""Framing: the shape that a picture is trained in, and the part of it that is kept. Pure.

Aspect-ratio buckets are NovelAI's (https://github.com/NovelAI/novelai-aspect-ratio-bucketing): shapes of about the area
of the square, none larger, sides in the base model's steps, from twice as high as wide to twice as wide as high. A
picture goes to the bucket that cuts least of it away, and is scaled to cover it, up or down.

Shapes: H/W height and width; sizes are (width, height) in pixels.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Crop = Literal["centre", "salient"]
Size = tuple[int, int]
_LARGEST_ASPECT = 2.0


@dataclass(frozen=True)
class Framing:
    """How pictures are framed; `resolution` and `size_step` in pixels. Without `aspect_buckets`, all in one square."""

    resolution: int
    size_step: int
    aspect_buckets: bool
    crop: Crop

    def size_for(self, size: Size) -> Size:
        """The size in which a picture of this size is trained."""
        # Of two that keep as much, the larger; of two as large, the wider.
        return max(self._buckets(), key=lambda bucket: (round(_kept(size, bucket), 6), bucket[0] * bucket[1], bucket))

    def box(self, grey_HW: np.ndarray, mask_HW: np.ndarray | None) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what is kept of a picture, in its pixels: of the shape of its `size_for`.

        `salient` keeps the part with most detail (the sum of the gradient's size), or, where there is a mask, the part
        round the mask's centre of mass.
        """
        height, width = grey_HW.shape
        wide, high = self.size_for((width, height))
        scale = min(width / wide, height / high)
        kept_width, kept_height = min(wide * scale, width), min(high * scale, height)
        left, top = (width - kept_width) / 2, (height - kept_height) / 2
        if self.crop == "salient":
            if mask_HW is not None and mask_HW.any():
                left, top = _round_mass(mask_HW.sum(0), kept_width), _round_mass(mask_HW.sum(1), kept_height)
            else:
                detail_HW = np.hypot(*np.gradient(grey_HW.astype(np.float32)))
                left = _most(detail_HW.sum(0), kept_width)
                top = _most(detail_HW.sum(1), kept_height)
        return left, top, left + kept_width, top + kept_height

    def _buckets(self) -> list[Size]:
        square = (self.resolution, self.resolution)
        if not self.aspect_buckets:
            return [square]
        widths = range(self.size_step, int(self.resolution * _LARGEST_ASPECT) + 1, self.size_step)
        sizes = [(width, self.resolution**2 // width // self.size_step * self.size_step) for width in widths]
        turned = [(height, width) for width, height in sizes]
        fitting = {size for size in [*sizes, *turned] if 0 < max(size) <= _LARGEST_ASPECT * min(size)}
        return sorted(fitting | {square})


def _kept(size: Size, bucket: Size) -> float:
    """The share of a picture that covers a bucket and is not cut away."""
    aspect, wanted = size[0] / size[1], bucket[0] / bucket[1]
    return min(aspect, wanted) / max(aspect, wanted)


def _most(detail: np.ndarray, length: float) -> float:
    """Where the stretch of this length begins that holds most detail; of several, the most central."""
    whole = min(max(1, round(length)), len(detail))
    spare = len(detail) - length
    sums = np.convolve(detail, np.ones(whole), "valid")
    starts = np.arange(len(sums))
    best = starts[sums >= sums.max() * (1 - 1e-6)]
    nearest = best[np.abs(best - spare / 2).argmin()]
    return float(np.clip(nearest, 0, spare)) if spare >= 1 else spare / 2


def _round_mass(mass: np.ndarray, length: float) -> float:
    """Where the stretch of this length begins whose middle is the centre of mass, as far as that is possible."""
    centre = float((mass * (np.arange(len(mass)) + 0.5)).sum() / mass.sum())
    return float(np.clip(centre - length / 2, 0, len(mass) - length))
