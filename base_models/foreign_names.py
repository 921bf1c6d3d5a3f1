"""Names that other programs give the tensors of a LoRA, and what they mean here. Imports no torch.

Its one rule: a layer is looked up among those that the base model has; no name is taken apart and put together again,
which would guess at underscores.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from base_models.adapter_rules import AdapterInvalid
from base_models.traits import FAMILIES
from base_models.traits.family_traits import FamilyTraits

Kind = Literal["A", "B", "magnitude_vector", "dora_scale", "alpha"]


class Key(NamedTuple):
    """A tensor's name, understood."""

    layer: str
    """As our own adapter files have it."""
    kind: Kind


_ENDINGS: dict[str, Kind] = {
    # PEFT, with and without the adapter's name; diffusers before PEFT, and the first of its attention processors.
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_A.default.weight": "A",
    ".lora_B.default.weight": "B",
    ".lora_magnitude_vector.weight": "magnitude_vector",
    ".lora_magnitude_vector.default.weight": "magnitude_vector",
    ".lora_magnitude_vector": "magnitude_vector",
    ".lora.down.weight": "A",
    ".lora.up.weight": "B",
    ".lora_linear_layer.down.weight": "A",
    ".lora_linear_layer.up.weight": "B",
    "_lora.down.weight": "A",
    "_lora.up.weight": "B",
    # Kohya's sd-scripts (networks/lora.py), and LyCORIS for the magnitudes of a DoRA.
    ".lora_down.weight": "A",
    ".lora_up.weight": "B",
    ".dora_scale": "dora_scale",
    ".alpha": "alpha",
}
# diffusers writes the second also where there is one text encoder, and reads either for the first of two.
_TEXT_PREFIXES = {"text_encoder": ("lora_te", "lora_te1"), "text_encoder_2": ("lora_te2",)}
_DENOISER_PREFIX = "lora_unet"
"""Kohya's for every family."""
# What is known and cannot be held: parts of names, and what they are of.
_OTHER_KINDS = {
    ".hada_": "a LoHa",
    ".lokr_": "a LoKr",
    ".lora_mid.": "a convolution in Tucker's decomposition",
    ".oft_": "an OFT",
    ".on_input": "an (IA)3",
    ".diff": "a difference of whole weights",
    ".lora_B.bias": "a LoRA with biases",
    ".lora_up.bias": "a LoRA with biases",
    ".lora_embedding_": "a LoRA of an embedding",
    ".w_norm": "a change of norms",
    ".b_norm": "a change of norms",
}


class ForeignNames:
    """The names that layers of one base model may have. layers: as our own adapter files have them."""

    def __init__(self, layers: Iterable[str], pipeline: str) -> None:
        self._layers: dict[str, str] = {}
        for layer in layers:
            for name in _names(layer, FAMILIES[pipeline]):
                # What two layers could be called means the first: the denoiser's prefix may be left out, others not.
                self._layers.setdefault(name, layer)

    def understand(self, key: str) -> Key:
        """What a tensor of this name is. Raises AdapterInvalid."""
        for ending, kind in _ENDINGS.items():
            if key.endswith(ending):
                name = key.removesuffix(ending).removeprefix("base_model.model.")
                layer = self._layers.get(name)
                if layer is not None:
                    return Key(layer, kind)
                raise AdapterInvalid(f"{key[:120]}: the base model has no such module")
        for part, what in _OTHER_KINDS.items():
            if part in key:
                raise AdapterInvalid(f"{key[:120]}: belongs to {what}; allowed is a LoRA, or a DoRA over outputs")
        raise AdapterInvalid(
            f"unknown key {key[:120]!r}; allowed are names of PEFT and diffusers, or of Kohya's scripts and ComfyUI"
        )


def _names(layer: str, traits: FamilyTraits) -> Iterator[str]:
    """Every name of a layer, its own first."""
    part, _, path = layer.partition(".")
    yield layer
    if part != traits.denoiser:
        # Some releases of transformers have it in their layers' names, others have not.
        bare = path.removeprefix("text_model.")
        yield from (f"{part}.text_model.{bare}", f"{part}.{bare}")
        for prefix in _TEXT_PREFIXES[part]:
            yield from (f"{prefix}_text_model_{bare.replace('.', '_')}", f"{prefix}_{bare.replace('.', '_')}")
        return
    yield path
    # Attention processors' own layers had no `.0`.
    parent, _, name = path.removesuffix(".0").rpartition(".")
    yield from (f"{part}.{parent}.processor.{name}", f"{parent}.processor.{name}")
    yield f"{_DENOISER_PREFIX}_{path.replace('.', '_')}"
    try:
        yield f"{_DENOISER_PREFIX}_{traits.kohya_place(path).name.replace('.', '_')}"
    except ValueError:
        # A layer that the published model has not.
        return
