"""Tables of where layers stand in the code that a model was published with. Imports no torch.

Its one rule: a table has whatever may be adapted, by diffusers' names with `*` for the number of a block; what it has
not is no layer of the published model.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from base_models.traits.family_traits import KohyaPlace

PlaceTable = Mapping[str, KohyaPlace]


def renamed(names: Mapping[str, str]) -> dict[str, KohyaPlace]:
    """Layers that are called something else."""
    return {layer: KohyaPlace(name) for layer, name in names.items()}


def fused(block: str, layers: Mapping[str, int], name: str) -> dict[str, KohyaPlace]:
    """Layers of a block that are one, in the order of its outputs, each with its width."""
    widths = tuple(layers.values())
    return {f"{block}.{layer}": KohyaPlace(name, part, widths) for part, layer in enumerate(layers)}


def within(block: str, names: Iterable[str]) -> dict[str, KohyaPlace]:
    """Layers of a block that are called the same."""
    return {f"{block}.{name}": KohyaPlace(f"{block}.{name}") for name in names}


def look_up(table: PlaceTable, layer: str) -> KohyaPlace:
    """The place of a layer that diffusers calls `layer`. Raises ValueError."""
    kind, _, rest = layer.partition(".")
    number, *_ = rest.split(".")
    is_in_block = number.isdecimal()
    place = table.get(f"{kind}.*{rest.removeprefix(number)}" if is_in_block else layer)
    if place is None:
        raise ValueError(f"the published model has no layer {layer[:120]!r}")
    return replace(place, name=place.name.replace("*", number)) if is_in_block else place
