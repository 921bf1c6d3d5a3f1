"""The words callers use for the contract's enums, and the one rule between them.

A word is the enum value's name without its prefix, in lower case, with hyphens: STAGE_STEPPING is `stepping`.
"""

from typing import Literal

from google.protobuf.descriptor import EnumDescriptor

from personae.errors import InvalidRequest, Violation

Targets = Literal["attention", "attention-and-convolution", "all"]
"""Which layers of the denoiser get a LoRA."""
Precision = Literal["float32", "bfloat16", "float16"]
"""Number format of the passes."""
Preset = Literal["fast", "balanced", "quality", "low-memory"]
"""How much time, or memory, a training may take."""
AdapterType = Literal["lora", "dora"]
"""What is trained."""
LossWeighting = Literal["constant", "min-snr", "p2", "debiased"]
"""How much the loss of each timestep counts."""
Optimizer = Literal["adamw", "prodigy"]
"""What turns gradients into updates."""
GradientCheckpointing = Literal["automatic", "always", "never"]
"""Whether activations are computed again in the backward pass."""
Crop = Literal["centre", "salient"]
"""Which part of a picture is kept where its shape does not fit."""
AdapterFormat = Literal["diffusers", "kohya"]
"""Whose key names an exported adapter has: diffusers' `load_lora_weights`, or Kohya's scripts and ComfyUI."""
Scheduler = Literal["ddim", "euler", "dpm-solver-multistep"]
"""How the noise is removed."""
ImageFormat = Literal["png", "webp", "jpeg"]
"""File format of an image."""
Delivery = Literal["inline", "bucket"]
"""How images come: with their files, or with the place in the bucket where their files lie."""


def word(enum: EnumDescriptor, number: int) -> str:
    """The word for a value; empty for the unspecified one, `unknown-N` for one of a newer server."""
    if number == 0:
        return ""
    value = enum.values_by_number.get(number)
    return _spelled(enum, value.name) if value else f"unknown-{number}"


def number(enum: EnumDescriptor, field: str, wanted: str) -> int:
    """The value for a word. Raises InvalidRequest, naming `field` and every word there is."""
    numbers = {_spelled(enum, value.name): value.number for value in enum.values if value.number != 0}
    if wanted not in numbers:
        raise InvalidRequest([Violation(field, f"found {wanted!r}; allowed are {', '.join(numbers)}")])
    return numbers[wanted]


def _spelled(enum: EnumDescriptor, name: str) -> str:
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return name.removeprefix(prefix).lower().replace("_", "-")
