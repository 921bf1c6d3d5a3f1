"""The identity encoder: which character, in which style, whatever the expression, the background and the framing.

Trained on renders alone (recipe/identity.py); the trainer never optimises against it.

Shapes: B batch, C channels, H/W 64, D 64.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from base_models.likeness import backbone

WEIGHTS = Path(__file__).parent / "identity_encoder.safetensors"
FEATURES = 64


class IdentityEncoder(nn.Module):
    """Unit features of pictures, twice: what style they are drawn in, and which character they show."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = backbone.Backbone()
        self.style = _head()
        self.character = _head()

    @classmethod
    def load(cls, device: torch.device, weights: Path = WEIGHTS) -> "IdentityEncoder":
        """The trained encoder, in float32. Raises OSError or a safetensors error where it is unreadable."""
        encoder = cls()
        encoder.load_state_dict(load_file(weights))
        return encoder.float().to(device).eval().requires_grad_(False)

    def save(self, weights: Path) -> None:
        """Write the weights, in float16."""
        whole = {name: value.contiguous() for name, value in self.state_dict().items()}
        halves = {name: value.half() if value.is_floating_point() else value for name, value in whole.items()}
        save_file(halves, weights)

    def forward(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Style_BD and character_BD, each of unit length, of pixels in [-1, 1]."""
        features_BD = self.backbone(pixels_BCHW)
        normalize = nn.functional.normalize
        return normalize(self.style(features_BD), dim=1), normalize(self.character(features_BD), dim=1)


def _head() -> nn.Module:
    wide = backbone.FEATURES
    return nn.Sequential(nn.Linear(wide, wide), nn.ReLU(inplace=True), nn.Linear(wide, FEATURES))
