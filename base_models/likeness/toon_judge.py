"""The judge of toon bases: the identity encoder tells likeness, the attribute classifier obedience.

Its one rule: the trainer never optimises against it.

Shapes: B batch, C channels, H/W height and width, D and E features.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from base_models.likeness.appearance import edges, resized
from base_models.likeness.attributes import AttributeClassifier
from base_models.likeness.evaluation import similarity
from base_models.likeness.identity_encoder import IdentityEncoder
from base_models.likeness.judge import Judge

_SIZE = 64
# Mean cosine of the training pictures: 0.57 was measured for one character, 0.1 to 0.3 for many of one style.
_ONE_CHARACTER = 0.37
_BACKGROUND = re.compile(r"(\w+) background")

# Framed about as often close or small as training pictures are. Eight make one group of pictures, for speed.
_SCENES = (
    ", white background",
    ", black background",
    ", red background, close-up",
    ", yellow background",
    ", green background",
    ", blue background, small",
    ", purple background",
    ", teal background",
)


class ToonJudge:
    """See Judge. Obedience is that of the background alone; what else was asked looks different in an unseen style."""

    name = "toon-likeness-1"
    scenes = _SCENES

    def __init__(self, identity: IdentityEncoder, attributes: AttributeClassifier) -> None:
        self._identity = identity
        self._attributes = attributes

    def identity(self, pixels_BCHW: Tensor, training_NCHW: Tensor) -> Tensor:
        """Unit features_BD: of the character where the training pictures agree on one, else of their style."""
        _, training_ND = self._identity(self._resized(training_NCHW))
        one = len(training_ND) == 1 or similarity(training_ND, training_ND, leave_one_out=True) >= _ONE_CHARACTER
        style_BD, character_BD = self._identity(self._resized(pixels_BCHW))
        return character_BD if one else style_BD

    def appearance(self, pixels_BCHW: Tensor) -> Tensor:
        return edges(self._placed(pixels_BCHW))

    def obedience(self, pixels_BCHW: Tensor, scenes: Sequence[str]) -> float:
        """Share of the pictures whose background is the one that their scene names."""
        read = self._attributes.predict(self._resized(pixels_BCHW))["background"]
        asked = [match[1] for match in map(_BACKGROUND.search, scenes) if match]
        return sum(a == b for a, b in zip(read, asked, strict=True)) / len(asked)

    def _resized(self, pixels_BCHW: Tensor) -> Tensor:
        return resized(self._placed(pixels_BCHW), _SIZE)

    def _placed(self, pixels_BCHW: Tensor) -> Tensor:
        return pixels_BCHW.to(next(self._identity.parameters()).device, torch.float32)


def load_toon_judge(device: torch.device) -> Judge:
    """The judge that is bundled with toon-64. Raises OSError or a safetensors error where it is unreadable."""
    return ToonJudge(IdentityEncoder.load(device), AttributeClassifier.load(device))
