"""What judges pictures: a port, so that numbers are computed in one way whatever networks look at them.

Shapes: B batch, C channels, H/W height and width, D and E features. Pixels are in [-1, 1]; pictures are square, of
any size, and come from any device.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Judge(Protocol):
    """Networks that look at pictures, loaded. What a judge cannot tell is None, and so is every number made of it."""

    name: str
    """What judged, with its version: numbers compare only under the same name. For example `toon-likeness-1`."""
    scenes: tuple[str, ...]
    """What follows the subject in each evaluation prompt, for example `, blue background`; the prompt is
    `a picture of {trigger} {noun}{scene}`."""

    def identity(self, pixels_BCHW: Tensor, training_NCHW: Tensor) -> Tensor | None:
        """Unit features_BD that are near for pictures of the same subject, whatever it does and wherever it is.

        training_NCHW shows what the subject is: a judge may look more at what these pictures have in common.
        """
        ...

    def appearance(self, pixels_BCHW: Tensor) -> Tensor | None:
        """Features_BE that are near (Euclidean) for pictures that look alike as a whole."""
        ...

    def obedience(self, pixels_BCHW: Tensor, scenes: Sequence[str]) -> float | None:
        """Share of the pictures, 0 to 1, that show the scene that was asked; `scenes` has one for each picture."""
        ...
