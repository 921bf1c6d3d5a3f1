"""An adapter file out of a LoRA file that another program wrote. Imports no torch; numpy computes.

Its one rule: names, shapes and offsets are settled first, then values go through one layer at a time, so that a file
costs the memory of what comes of it. Nothing in the file configures anything: its metadata is not read.

A layer that is several here is cut into them: A goes to each, of B each has its rows. Where B is block-diagonal, as
exports of ours write it, each part has its own ranks only, which the zeros of B tell.
"""

import io
import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from base_models.adapters.adapter_rules import MAX_RANK, AdapterInvalid, adapter_header, check_dtypes, check_layers
from base_models.adapters.foreign_names import ForeignNames, Place
from base_models.adapters.fused_layers import own_ranks
from base_models.adapters.layer_shapes import LayerShapes
from base_models.safetensors_header import Readable, TensorPlace
from base_models.traits import FAMILIES
from base_models.traits.family_traits import FamilyTraits, TargetsName

_Floats = NDArray[np.float32]
# Of single numbers; updates are floats.
_ALPHA_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
_FLOAT_DTYPES = {"F32": "<f4", "F16": "<f2"}
_BITS = {"F32": "<u4", "F16": "<u2", "BF16": "<u2"}
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
    """A tensor of the file on its way into ours: another shape, times a factor.

    columns: those of a matrix that are wanted; None: all. is_turned: the halves of its rows change places.
    """

    place: TensorPlace
    shape: tuple[int, ...]
    factor: float = 1.0
    columns: slice | None = None
    is_turned: bool = False


_Kinds = dict[str, _Values]
_Layers = dict[str, _Kinds]


def import_adapter(body: Readable, shapes: LayerShapes, pipeline: str) -> ImportedAdapter:
    """Convert a file in the names of PEFT and diffusers or of Kohya's scripts and ComfyUI. Raises AdapterInvalid.

    shapes, pipeline: of the base model that it was made for. Each layer's alpha / rank is folded into B; without an
    alpha it is 1, as in those programs. Layers may differ in rank. What comes of it passes `read_adapter`.
    """
    layers: _Layers = {}
    for place, kinds in _places(body, ForeignNames(shapes, pipeline)).items():
        for layer, own in _split(body, place, kinds, shapes).items():
            layers.setdefault(layer, {}).update(own)
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


def _places(body: Readable, names: ForeignNames) -> dict[Place, _Kinds]:
    """The tensors by place, then `A`, `B` and `magnitude_vector`, each alpha in its B."""
    places: dict[Place, _Kinds] = {}
    alphas: dict[Place, tuple[str, float]] = {}
    seen: dict[tuple[str, str], str] = {}
    for key, tensor in adapter_header(body).items():
        place, kind = names.understand(key)
        kind_here = "magnitude_vector" if kind == "dora_scale" else kind
        for layer in place.layers:
            earlier = seen.setdefault((layer, kind_here), key)
            if earlier != key:
                raise AdapterInvalid(f"{key[:120]}: is the same tensor as {earlier[:120]}; allowed is one of them")
        if kind == "alpha":
            alphas[place] = key, _alpha(key, tensor, body)
            continue
        check_dtypes({key: tensor})
        shape = _peft_magnitudes(key, tensor.shape) if kind == "dora_scale" else tensor.shape
        places.setdefault(place, {})[kind_here] = _Values(tensor, shape)
    for place, (key, alpha) in alphas.items():
        kinds = places.get(place, {})
        if not {"A", "B"} <= kinds.keys():
            raise AdapterInvalid(f"{key[:120]}: is the alpha of a layer that has not both matrices")
        rank = (kinds["A"].shape or (0,))[0]
        # A rank of 0 is refused with the shapes.
        kinds["B"] = replace(kinds["B"], factor=alpha / max(rank, 1))
    return places


def _split(body: Readable, place: Place, kinds: _Kinds, shapes: LayerShapes) -> _Layers:
    """The tensors of each layer of a place."""
    if place.is_turned:
        kinds = {kind: replace(values, is_turned=kind != "A") for kind, values in kinds.items()}
    if len(place.layers) == 1:
        return {place.layers[0]: kinds}
    outputs = [shapes[layer][0] for layer in place.layers]
    _check_whole(place, kinds, sum(outputs), shapes)
    b, layers, first = kinds["B"], {}, 0
    # Without the sign, so that -0 is zero as well.
    bits = np.frombuffer(body[b.place.start : b.place.stop], _BITS[b.place.dtype]).reshape(b.shape) << 1
    for layer, count, ranks in zip(place.layers, outputs, own_ranks(bits, outputs), strict=True):
        rows, first = slice(first, first + count), first + count
        if ranks is None and "magnitude_vector" not in kinds:
            # Nothing changes here.
            continue
        # Magnitudes count also where the direction stays.
        ranks = ranks or slice(0, 1)
        layers[layer] = {
            "A": _rows(kinds["A"], ranks),
            "B": replace(_rows(b, rows), shape=(count, ranks.stop - ranks.start), columns=ranks),
        }
        if "magnitude_vector" in kinds:
            layers[layer]["magnitude_vector"] = _rows(kinds["magnitude_vector"], rows)
    return layers


def _check_whole(place: Place, kinds: _Kinds, outputs: int, shapes: LayerShapes) -> None:
    """Raise AdapterInvalid unless the tensors are those of all layers of a place together."""
    whole = f"{place.layers[0][:120]} and those beside it"
    if not {"A", "B"} <= kinds.keys():
        raise AdapterInvalid(f"{whole}: has lora_{min(kinds)} without its other half")
    a, b = kinds["A"].shape, kinds["B"].shape
    rank, most = (a or (0,))[0], MAX_RANK * len(place.layers)
    if not 1 <= rank <= most:
        raise AdapterInvalid(f"{whole}: rank {rank}; allowed is 1 to {MAX_RANK} for each, {most} together")
    wanted_a, wanted_b = (rank, shapes[place.layers[0]][1]), (outputs, rank)
    if (a, b) != (wanted_a, wanted_b):
        raise AdapterInvalid(
            f"{whole}: shapes {list(a)} and {list(b)}; the base model needs {list(wanted_a)} and {list(wanted_b)}"
        )
    magnitudes = kinds.get("magnitude_vector")
    if magnitudes is not None and magnitudes.shape != (outputs,):
        raise AdapterInvalid(
            f"{whole}: a magnitude vector of shape {list(magnitudes.shape)}; the base model needs {[outputs]}"
        )


def _rows(values: _Values, rows: slice) -> _Values:
    """Some rows of a tensor, which lie next to each other in the file."""
    place = values.place
    row_bytes = (place.stop - place.start) // values.shape[0]
    start, stop = place.start + rows.start * row_bytes, place.start + rows.stop * row_bytes
    shape = (rows.stop - rows.start, *values.shape[1:])
    return replace(values, place=TensorPlace(place.dtype, shape, start, stop), shape=shape)


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
    if values.columns is not None:
        found = found.reshape(values.place.shape)[:, values.columns]
    if values.is_turned:
        # The whole, seen as a ring, turned by half.
        found = np.roll(found, found.size // 2)
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
