"""What a toon picture shows, read from its pixels: style, background, hair, skin, clothes, glasses, expression.

Trained on renders alone (recipe/attributes.py). Shapes: B batch, C channels, H/W 64.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from base_models.likeness.backbone import FEATURES, Backbone

WEIGHTS = Path(__file__).parent / "attributes.safetensors"


class AttributeClassifier(nn.Module):
    """One linear head an attribute on a shared backbone. `heads`: the values of each attribute, by its name."""

    def __init__(self, heads: dict[str, tuple[str, ...]]) -> None:
        super().__init__()
        self.heads = heads
        self.backbone = Backbone()
        self.outputs = nn.ModuleDict({name: nn.Linear(FEATURES, len(values)) for name, values in heads.items()})

    @classmethod
    def load(cls, device: torch.device, weights: Path = WEIGHTS) -> "AttributeClassifier":
        """The trained classifier, in float32. Raises OSError or a safetensors error where it is unreadable."""
        with safe_open(weights, "pt") as file:
            heads = {name: tuple(values) for name, values in json.loads(file.metadata()["heads"]).items()}
            classifier = cls(heads)
            classifier.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        return classifier.float().to(device).eval().requires_grad_(False)

    def save(self, weights: Path) -> None:
        """Write the weights, in float16, and the heads' values in the file's header."""
        whole = {name: value.contiguous() for name, value in self.state_dict().items()}
        halves = {name: value.half() if value.is_floating_point() else value for name, value in whole.items()}
        save_file(halves, weights, {"heads": json.dumps(self.heads)})

    def forward(self, pixels_BCHW: Tensor) -> dict[str, Tensor]:
        """Logits of every head, [B, values], of pixels in [-1, 1]."""
        features_BD = self.backbone(pixels_BCHW)
        return {name: output(features_BD) for name, output in self.outputs.items()}

    def predict(self, pixels_BCHW: Tensor) -> dict[str, list[str]]:
        """The likeliest value of every attribute, one a picture."""
        return {
            name: [self.heads[name][index] for index in logits.argmax(1).tolist()]
            for name, logits in self(pixels_BCHW).items()
        }
