"""The small residual network under both judges of 64-pixel cartoon pictures.

Shapes: B batch, C channels, H/W height and width, D features.
"""

from itertools import pairwise

from torch import Tensor, nn

_WIDTHS = (32, 64, 128, 256)
FEATURES = _WIDTHS[-1]


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions round a shortcut (He et al. 2015, https://arxiv.org/abs/1512.03385); `stride` 2 halves."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, values_BCHW: Tensor) -> Tensor:
        """Values_BCHW, at half the height and width where the stride is 2."""
        return nn.functional.relu(self.second(self.first(values_BCHW)) + self.shortcut(values_BCHW))


class Backbone(nn.Module):
    """A stem at full size and up to four blocks, each half as high and wide as the one before."""

    def __init__(self, blocks: int = len(_WIDTHS)) -> None:
        super().__init__()
        widths = (_WIDTHS[0] // 2, *_WIDTHS[:blocks])
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)
        )
        self.blocks = nn.Sequential(*(ResidualBlock(inputs, outputs, 2) for inputs, outputs in pairwise(widths)))

    def levels(self, pixels_BCHW: Tensor) -> list[Tensor]:
        """What the stem and each block make of pixels in [-1, 1], [B, C, H, W] each."""
        levels = [self.stem(pixels_BCHW)]
        for block in self.blocks:
            levels.append(block(levels[-1]))
        return levels

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Features_BD: the last level, averaged over the picture."""
        return self.levels(pixels_BCHW)[-1].mean((2, 3))
