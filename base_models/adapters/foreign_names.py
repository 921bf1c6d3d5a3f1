"""Names that other programs give the tensors of a LoRA, and what they mean here. Imports no torch.

Its one rule: a layer is looked up among those that the base model has; no name is taken apart and put together again,
which would guess at underscores.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from base_models.adapters.adapter_rules import AdapterInvalid
from base_models.traits import FAMILIES
from base_models.traits.family_traits import FamilyTraits, KohyaPlace

Kind = Literal["A", "B", "magnitude_vector", "dora_scale", "alpha"]


class Place(NamedTuple):
    """What a name of a layer means here."""

    layers: tuple[str, ...]
    """As our own adapter files have them. Several are one in that program, one below the other in its outputs."""
    is_turned: bool = False
    """The halves of its outputs stand the other way round."""


class Key(NamedTuple):
    """A tensor's name, understood."""

    place: Place
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
_COMFY_PREFIX = "diffusion_model"
"""ComfyUI's for every family, and ai-toolkit's."""
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
    **dict.fromkeys(
        (".processor.qkv_lora", ".processor.proj_lora"), "XLabs' processors, whose names are not known here"
    ),
}


class ForeignNames:
    """The names that layers of one base model may have. layers: as our own adapter files have them."""

    def __init__(self, layers: Iterable[str], pipeline: str) -> None:
        traits, layers = FAMILIES[pipeline], tuple(layers)
        self._places: dict[str, Place] = {}
        # What two layers could be called means the first: the denoiser's prefix may be left out, others not.
        for layer in layers:
            for name in _names(layer, traits):
                self._places.setdefault(name, Place((layer,)))
        for published, place in _published(layers, traits).items():
            for name in (
                f"{_DENOISER_PREFIX}_{published.replace('.', '_')}",
                f"{_COMFY_PREFIX}.{published}",
                published,
            ):
                self._places.setdefault(name, place)

    def understand(self, key: str) -> Key:
        """What a tensor of this name is. Raises AdapterInvalid."""
        known = next((ending for ending in _ENDINGS if key.endswith(ending)), "")
        place = self._places.get(key.removesuffix(known).removeprefix("base_model.model."))
        if known and place is not None:
            return Key(place, _ENDINGS[known])
        for part, what in _OTHER_KINDS.items():
            if part in key:
                raise AdapterInvalid(f"{key[:120]}: belongs to {what}; allowed is a LoRA, or a DoRA over outputs")
        if known:
            raise AdapterInvalid(f"{key[:120]}: the base model has no such module")
        raise AdapterInvalid(
            f"unknown key {key[:120]!r}; allowed are names of PEFT and diffusers, or of Kohya's scripts and ComfyUI"
        )


def _names(layer: str, traits: FamilyTraits) -> Iterator[str]:
    """Every name of a layer but the denoiser's published ones, its own first."""
    part, _, path = layer.partition(".")
    yield layer
    if part != traits.denoiser:
        # Some releases of transformers have it in their layers' names, others have not.
        bare = path.removeprefix("text_model.")
        yield from (f"{part}.text_model.{bare}", f"{part}.{bare}")
        for prefix in _TEXT_PREFIXES[part]:
            yield from (f"{prefix}_text_model_{bare.replace('.', '_')}", f"{prefix}_{bare.replace('.', '_')}")
        return
    yield from (path, f"{_COMFY_PREFIX}.{path}")
    # Attention processors' own layers had no `.0`.
    parent, _, name = path.removesuffix(".0").rpartition(".")
    yield from (f"{part}.{parent}.processor.{name}", f"{parent}.processor.{name}")
    yield f"{_DENOISER_PREFIX}_{path.replace('.', '_')}"


def _published(layers: Iterable[str], traits: FamilyTraits) -> dict[str, Place]:
    """The denoiser's layers as the published model has them, by its names."""
    parts: dict[str, dict[int, str]] = {}
    kinds: dict[str, KohyaPlace] = {}
    for layer in layers:
        part, _, path = layer.partition(".")
        if part == traits.denoiser:
            try:
                kind = traits.kohya_place(path)
            except ValueError:
                # A layer that the published model has not.
                continue
            parts.setdefault(kind.name, {})[kind.part] = layer
            kinds[kind.name] = kind
    return {
        name: Place(tuple(found[number] for number in sorted(found)), kinds[name].turned)
        for name, found in parts.items()
        # A base model without one of the parts has no such layer.
        if len(found) == len(kinds[name].widths)
    }
