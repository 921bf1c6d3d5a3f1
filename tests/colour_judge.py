"""A judge that is small and real: it tells pictures apart by their colours, as any judge does by its features."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize


class ColourJudge:
    """See Judge. The subject is the colour of the picture's quarters, the scene whether it is bright or dark."""

    name = "colours-1"
    scenes = (", in bright light", ", in the dark", ", in bright light")

    def identity(self, pixels_BCHW: Tensor, training_NCHW: Tensor) -> Tensor:
        return normalize(adaptive_avg_pool2d(pixels_BCHW.float(), 2).flatten(1), dim=1)

    def appearance(self, pixels_BCHW: Tensor) -> Tensor:
        return adaptive_avg_pool2d(pixels_BCHW.float(), 8).flatten(1)

    def obedience(self, pixels_BCHW: Tensor, scenes: Sequence[str]) -> float:
        bright = [scene == ", in bright light" for scene in scenes]
        means = pixels_BCHW.float().mean(dim=(1, 2, 3)).tolist()
        return sum((mean > 0) == asked for mean, asked in zip(means, bright, strict=True)) / len(bright)
