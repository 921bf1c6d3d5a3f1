"""Which layers of a UNet a training adapts, by the words of the contract; and the way back. Imports no torch."""

from collections.abc import Iterable

from base_models.catalog import TargetsName

_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
_CONVOLUTION = ["conv1", "conv2", "conv_shortcut"]
_ROUND_ATTENTION = ["ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
TARGETS: dict[TargetsName, list[str]] = {
    "attention": _ATTENTION,
    "attention_and_convolution": [*_ATTENTION, *_CONVOLUTION],
    "all": [*_ATTENTION, *_CONVOLUTION, *_ROUND_ATTENTION, "conv_in", "conv_out"],
}
"""Name endings of layers, the fewest first."""


def targets_of(layers: Iterable[str]) -> TargetsName:
    """The fewest targets that take in all these layers of a UNet; `all` also where there are others."""
    found = list(layers)
    for targets, endings in TARGETS.items():
        if all(f".{layer}".endswith(tuple(f".{ending}" for ending in endings)) for layer in found):
            return targets
    return "all"
