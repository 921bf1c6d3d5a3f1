"""The identity encoder: which character, in which style, whatever the expression, the background and the framing.

It looks at how strongly and how unevenly each channel of a small network answers to a picture, and counts a difference
by how rarely pictures of one character (or of one style) differ so. Trained on renders alone (recipe/identity.py); the
trainer never optimises against it.

Shapes: B batch, C channels, H/W 64, D 480 features.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from base_models.likeness.backbone import Backbone

WEIGHTS = Path(__file__).parent / "identity_encoder.safetensors"
_BLOCKS = 3
FEATURES = 2 * (16 + 32 + 64 + 128)


class IdentityEncoder(nn.Module):
    """Unit features of pictures, twice: what style they are drawn in, and which character they show.

    style_DD, character_DD: the inverse square roots of how pictures of one style, of one character, vary (within-class
    covariance normalization: Hatch et al. 2006, "Within-class covariance normalization for SVM-based speaker
    recognition", Interspeech, section 2.2). mean_D: the mean over characters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(_BLOCKS)
        self.register_buffer("mean_D", torch.zeros(FEATURES))
        self.register_buffer("style_DD", torch.eye(FEATURES))
        self.register_buffer("character_DD", torch.eye(FEATURES))

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

    def statistics(self, pixels_BCHW: Tensor) -> Tensor:
        """Mean and standard deviation over the picture of every channel of every level, [B, D]."""
        levels = self.backbone.levels(pixels_BCHW)
        return torch.cat([moment for level in levels for moment in (level.mean((2, 3)), level.std((2, 3)))], dim=1)

    def forward(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Style_BD and character_BD, each of unit length, of pixels in [-1, 1]."""
        centred_BD = self.statistics(pixels_BCHW) - self.mean_D
        normalize = nn.functional.normalize
        return normalize(centred_BD @ self.style_DD, dim=1), normalize(centred_BD @ self.character_DD, dim=1)
