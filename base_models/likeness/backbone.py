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
    """Features_BD of pixels_BCHW in [-1, 1]: four halvings, then the mean over what is left of the picture."""

    def __init__(self) -> None:
        super().__init__()
        stem = _WIDTHS[0] // 2
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU(inplace=True))
        widths = (stem, *_WIDTHS)
        self.blocks = nn.Sequential(*(ResidualBlock(a, b, 2) for a, b in pairwise(widths)))

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Features_BD."""
        return self.blocks(self.stem(pixels_BCHW)).mean((2, 3))
