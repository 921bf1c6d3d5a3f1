"""An adapter file out of a LoRA file that another program wrote. Imports no torch; numpy computes.

Its one rule: names, shapes and offsets are settled before a value is read, then values go through one layer at a time,
so that a file costs the memory of what comes of it. Nothing in the file configures anything: its metadata is not read.
"""

import io
import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from base_models.adapter_rules import AdapterInvalid, adapter_header, check_dtypes, check_layers
from base_models.foreign_names import ForeignNames
from base_models.layer_shapes import LayerShapes
from base_models.safetensors_header import Readable, TensorPlace
from base_models.traits import FAMILIES
from base_models.traits.family_traits import FamilyTraits, TargetsName

_Floats = NDArray[np.float32]
# Of single numbers; updates are floats.
_ALPHA_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
_FLOAT_DTYPES = {"F32": "<f4", "F16": "<f2"}
# The reader's norm is summed in float32 and in another order.
_NORM_MARGIN = 1 + 1e-4
_FILE_NAMES = {"A": "lora_A.weight", "B": "lora_B.weight", "magnitude_vector": "lora_magnitude_vector.weight"}
_ALIGNMENT = 8


@dataclass(frozen=True)
class ImportedAdapter:
    """`body`: an adapter file as `write_adapter` writes it, in float32. `rank`: the largest among its layers."""

    body: bytes
    rank: int
    targets: TargetsName


@dataclass(frozen=True)
class _Values:
    """A tensor of the file on its way into ours: another shape, times a factor."""

    place: TensorPlace
    shape: tuple[int, ...]
    factor: float = 1.0


_Layers = dict[str, dict[str, _Values]]


def import_adapter(body: Readable, shapes: LayerShapes, pipeline: str) -> ImportedAdapter:
    """Convert a file in the names of PEFT and diffusers or of Kohya's scripts and ComfyUI. Raises AdapterInvalid.

    shapes, pipeline: of the base model that it was made for. Each layer's alpha / rank is folded into B; without an
    alpha it is 1, as in those programs. Layers may differ in rank. What comes of it passes `read_adapter`.
    """
    layers = _layers(body, ForeignNames(shapes, pipeline))
    # Values that are no numbers are found by their norm.
    with np.errstate(all="ignore"):
        check_layers(layers, shapes, lambda values: _norm(_read(body, values)))
        written = _write(
            {
                f"{layer}.{_FILE_NAMES[kind]}": values
                for layer, kinds in layers.items()
                for kind, values in kinds.items()
            },
            lambda values: _read(body, values),
        )
    rank = max(kinds["A"].shape[0] for kinds in layers.values())
    return ImportedAdapter(written, rank, _targets(layers, FAMILIES[pipeline]))


def _layers(body: Readable, names: ForeignNames) -> _Layers:
    """The tensors by layer, then `A`, `B` and `magnitude_vector`, each alpha in its layer's B."""
    layers: _Layers = {}
    alphas: dict[str, tuple[str, float]] = {}
    seen: dict[tuple[str, str], str] = {}
    for key, place in adapter_header(body).items():
        layer, kind = names.understand(key)
        kind_here = "magnitude_vector" if kind == "dora_scale" else kind
        earlier = seen.setdefault((layer, kind_here), key)
        if earlier != key:
            raise AdapterInvalid(f"{key[:120]}: is the same tensor as {earlier[:120]}; allowed is one of them")
        if kind == "alpha":
            alphas[layer] = key, _alpha(key, place, body)
            continue
        check_dtypes({key: place})
        shape = _peft_magnitudes(key, place.shape) if kind == "dora_scale" else place.shape
        layers.setdefault(layer, {})[kind_here] = _Values(place, shape)
    for layer, (key, alpha) in alphas.items():
        if not {"A", "B"} <= layers.get(layer, {}).keys():
            raise AdapterInvalid(f"{key[:120]}: is the alpha of a layer that has not both matrices")
        rank = (layers[layer]["A"].shape or (0,))[0]
        # A rank of 0 is refused with the shapes.
        layers[layer]["B"] = _Values(layers[layer]["B"].place, layers[layer]["B"].shape, alpha / max(rank, 1))
    return layers


def _targets(layers: Iterable[str], traits: FamilyTraits) -> TargetsName:
    """The fewest targets that take in all these layers of the denoiser; `all` also where there are others."""
    found = [layer for layer in layers if layer.startswith(f"{traits.denoiser}.")]
    for targets, endings in traits.targets.items():
        if all(layer.endswith(tuple(f".{ending}" for ending in endings)) for layer in found):
            return targets
    return "all"


def _alpha(key: str, place: TensorPlace, body: Readable) -> float:
    if math.prod(place.shape) != 1 or place.dtype not in {*_ALPHA_DTYPES, "BF16"}:
        raise AdapterInvalid(f"{key[:120]}: {place.dtype} of shape {list(place.shape)}; allowed is a single number")
    raw = body[place.start : place.stop]
    alpha = float(_bfloat16(raw)[0] if place.dtype == "BF16" else np.frombuffer(raw, _ALPHA_DTYPES[place.dtype])[0])
    if not (math.isfinite(alpha) and alpha > 0):
        raise AdapterInvalid(f"{key[:120]}: alpha {alpha:g}; allowed is a finite number above 0")
    return alpha


def _peft_magnitudes(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """LyCORIS has [out, 1] and [out, 1, 1, 1], PEFT [out] and [1, out, 1, 1]."""
    match shape:
        case (outputs, 1):
            return (outputs,)
        case (outputs, 1, 1, 1):
            return (1, outputs, 1, 1)
    raise AdapterInvalid(
        f"{key[:120]}: magnitudes of shape {list(shape)}; allowed are those of outputs, [out, 1(, 1, 1)]"
    )


def _read(body: Readable, values: _Values) -> _Floats:
    raw = body[values.place.start : values.place.stop]
    if values.place.dtype == "BF16":
        found = _bfloat16(raw)
    else:
        found = np.frombuffer(raw, _FLOAT_DTYPES[values.place.dtype]).astype("<f4")
    return found if values.factor == 1 else found * np.float32(values.factor)


def _bfloat16(raw: bytes) -> _Floats:
    """The upper half of a float32 each."""
    return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")


def _norm(values: _Floats) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).sum())) * _NORM_MARGIN


def _write(tensors: Mapping[str, _Values], read: Callable[[_Values], _Floats]) -> bytes:
    """A safetensors file in order of its names, all float32; equal tensors make equal files."""
    header, position = {}, 0
    for name in sorted(tensors):
        stop = position + 4 * math.prod(tensors[name].shape)
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    # Spaces, so that what follows is aligned.
    text += b" " * (-len(text) % _ALIGNMENT)
    file = io.BytesIO()
    file.write(struct.pack("<Q", len(text)) + text)
    for name in sorted(tensors):
        file.write(read(tensors[name]).tobytes())
    return file.getvalue()
