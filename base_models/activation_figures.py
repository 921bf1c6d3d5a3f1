"""What a family's networks hold while they compute, as it was counted once on the published shape. Imports no torch.

Its one rule: figures are counted, never guessed: `python -m tests.benchmarks.activation_memory --family TAG --write`.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from base_models.traits.family_traits import TargetsName

# Of float32's to 16 bits', which keep norms in float32, where only those were counted: docs/measurements.md.
_FLOAT32 = 1.5
FOLDER = Path(__file__).parent / "activations"


class Held(BaseModel):
    """Bytes at the worst moment, linear in pictures and in places of their latents."""

    model_config = ConfigDict(frozen=True)

    fixed: float
    """However little is computed: weights cast to the number format of the pass, which the backward pass needs too."""
    per_picture: float
    """Of its prompt."""
    per_position: float
    """Of each place of a picture's latents, once: where pictures go one by one."""
    per_picture_position: float

    def bytes_for(self, pictures: int, positions: int) -> float:
        """Of a pass over pictures of so many places each."""
        of_each = self.per_picture + self.per_picture_position * positions
        return max(0.0, self.fixed + self.per_position * positions + of_each * pictures)

    def times(self, factor: float) -> "Held":
        """So many times as much."""
        return Held(**{name: value * factor for name, value in self})


class Step(BaseModel):
    """A forward and a backward pass, but for the adapter: activations kept, and computed again."""

    model_config = ConfigDict(frozen=True)

    kept: Held
    recomputed: Held


class ActivationFigures(BaseModel):
    """What was counted of a family. Maps are by `float32` and `halves`: what the passes compute in."""

    model_config = ConfigDict(frozen=True)

    counted_on: str
    inputs: int
    """Features that go into the layers of the denoiser, added up: what activations grow with in other shapes."""
    parameters: int
    """Of the denoiser's layers: what casts of weights grow with."""
    pixels_per_position: int
    latent_channels: int
    prompt_bytes: int
    """What is kept of a prompt that was encoded once."""
    steps: Mapping[TargetsName, Mapping[str, Step]]
    text_encoders: Mapping[str, Held]
    """Of text encoders that are trained, besides, by prompts; their figures by places are 0."""
    drawing: Mapping[str, Held]
    """A pass without a backward pass, of rows: two a picture where it is guided."""
    encoding: Held
    """The autoencoder, in float32, from pictures; and back."""
    decoding: Held

    def step(self, targets: TargetsName, halves: bool, recomputes: bool) -> Held:
        """Of a step in 16 bits or in float32; recomputes: with gradient checkpointing."""
        by_format = self.steps[targets]
        return _in_format(
            {name: step.recomputed if recomputes else step.kept for name, step in by_format.items()}, halves
        )

    def text_encoding(self, halves: bool) -> Held:
        """Of text encoders that are trained, besides."""
        return _in_format(self.text_encoders, halves)

    def drawn(self, halves: bool) -> Held:
        """Of a pass that draws."""
        return _in_format(self.drawing, halves)


def _in_format(by_format: Mapping[str, Held], halves: bool) -> Held:
    found = by_format.get("halves" if halves else "float32")
    return found if found is not None else by_format["halves"].times(_FLOAT32)


def read_figures(name: str, tag: str) -> ActivationFigures | None:
    """Those of a bundled model, or else of its family by its tag; None where nobody has counted."""
    for stem in (name, tag):
        path = FOLDER / f"{stem}.json"
        if path.is_file():
            return ActivationFigures.model_validate_json(path.read_text())
    return None
