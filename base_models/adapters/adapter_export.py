"""An adapter file under the key names that other programs read. Imports no torch.

Its one rule: numbers keep their bits; names change, shapes of a DoRA's magnitudes, and what is one layer there becomes
one. Equal tensors and equal metadata make equal files, which the safetensors library does not promise of its headers.
"""

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from base_models.adapters.fused_layers import PartMissing, Update, fuse
from base_models.traits import FAMILIES
from base_models.traits.family_traits import FamilyTraits, KohyaPlace

KeyNames = Literal["diffusers", "kohya"]

_A, _B, _MAGNITUDES = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector.weight"
# Numbers are moved, never computed with.
_BITS = {"F32": "<u4", "F16": "<u2", "BF16": "<u2"}
_ALIGNMENT = 8
_INSTEAD = "export it in diffusers' names, which say everything"


class NotExportable(Exception):
    """The adapter cannot be said in these names; the text says why, and what can be done."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a safetensors file holds it; `dtype` in that format's words."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


_Layer = dict[str, StoredTensor]


def stored_tensors(body: bytes) -> dict[str, StoredTensor]:
    """The tensors of an adapter file that `write_adapter` made; nothing is checked."""
    (length,) = struct.unpack_from("<Q", body)
    start = 8 + length
    tensors = {}
    for name, entry in json.loads(body[8:start]).items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            tensors[name] = StoredTensor(entry["dtype"], tuple(entry["shape"]), body[start + first : start + last])
    return tensors


def is_dora(tensors: Mapping[str, StoredTensor]) -> bool:
    """Whether an adapter's tensors are those of a DoRA."""
    return any(name.endswith(_MAGNITUDES) for name in tensors)


def renamed(tensors: Mapping[str, StoredTensor], key_names: KeyNames, pipeline: str) -> dict[str, StoredTensor]:
    """The tensors of an adapter file in the names of diffusers' `load_lora_weights` or of Kohya. Raises NotExportable.

    pipeline: the base model's, one of FAMILIES.

    diffusers' own names are PEFT's, with the `text_model.` that a text encoder's layers have in most releases of
    transformers. Kohya's (sd-scripts, networks/lora.py) spell a layer's path with underscores, that in the denoiser as
    the code has it that the model was published with, where several layers of diffusers may be one; each layer has its
    `alpha`, here the rank, and a DoRA's layer LyCORIS's `dora_scale`, [out, 1] or [out, 1, 1, 1].
    """
    traits = FAMILIES[pipeline]
    named = {_with_text_model(name, traits.denoiser): tensor for name, tensor in tensors.items()}
    return named if key_names == "diffusers" else _kohya(named, traits)


def write_safetensors(tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file (https://github.com/huggingface/safetensors#format) with a header in order of its keys.

    `modelspec.hash_sha256` is added to the metadata: of everything behind the header, as ModelSpec has it.
    """
    ordered = sorted(tensors)
    digest = hashlib.sha256()
    for name in ordered:
        digest.update(tensors[name].data)
    known = {**metadata, "modelspec.hash_sha256": f"0x{digest.hexdigest()}"}
    header: dict[str, object] = {"__metadata__": dict(sorted(known.items()))}
    position = 0
    for name in ordered:
        tensor = tensors[name]
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, position := position + len(tensor.data)],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    # Spaces, so that what follows is aligned.
    text += b" " * (-len(text) % _ALIGNMENT)
    # At once, since fused layers make large files.
    return b"".join([struct.pack("<Q", len(text)), text, *(tensors[name].data for name in ordered)])


def _with_text_model(name: str, denoiser: str) -> str:
    prefix, _, rest = name.partition(".")
    if prefix == denoiser or rest.startswith("text_model."):
        return name
    return f"{prefix}.text_model.{rest}"


def _kohya(tensors: Mapping[str, StoredTensor], traits: FamilyTraits) -> dict[str, StoredTensor]:
    parts: dict[str, dict[int, _Layer]] = {}
    widths: dict[str, tuple[int, ...]] = {}
    for layer, found in _by_layer(tensors).items():
        prefix, _, path = layer.partition(".")
        place = _place(layer, path, traits) if prefix == traits.denoiser else KohyaPlace(path)
        name = f"{traits.kohya_prefixes[prefix]}_{place.name.replace('.', '_')}"
        parts.setdefault(name, {})[place.part] = _turned(found) if place.turned else found
        widths[name] = place.widths
    return {
        f"{name}{ending}": tensor
        for name, found in parts.items()
        for ending, tensor in _kohya_layer(_whole(name, found, widths[name])).items()
    }


def _by_layer(tensors: Mapping[str, StoredTensor]) -> dict[str, _Layer]:
    """The tensors of each layer by what their names end with."""
    layers: dict[str, _Layer] = {}
    for name, tensor in tensors.items():
        ending = next(ending for ending in (_A, _B, _MAGNITUDES) if name.endswith(ending))
        layers.setdefault(name.removesuffix(ending), {})[ending] = tensor
    return layers


def _place(layer: str, path: str, traits: FamilyTraits) -> KohyaPlace:
    try:
        return traits.kohya_place(path)
    except ValueError as error:
        raise NotExportable(f"{layer[:120]} has no name there; {_INSTEAD}") from error


def _whole(name: str, parts: Mapping[int, _Layer], widths: tuple[int, ...]) -> _Layer:
    """The layer of that name, of which these are parts."""
    if len(widths) == 1:
        return parts[0]
    # An adapter file has one dtype.
    (dtype,) = {tensor.dtype for part in parts.values() for tensor in part.values()}
    updates = [_update(parts[number]) if number in parts else None for number in range(len(widths))]
    try:
        whole = fuse(updates, widths)
    except PartMissing as error:
        raise NotExportable(
            f"{name} is one layer there, of which this DoRA changes {len(parts)} of {len(widths)} parts, and a "
            f"magnitude is needed of all; {_INSTEAD}"
        ) from error
    bits = {_A: whole.a, _B: whole.b} | ({} if whole.magnitudes is None else {_MAGNITUDES: whole.magnitudes})
    return {ending: StoredTensor(dtype, found.shape, found.tobytes()) for ending, found in bits.items()}


def _update(layer: _Layer) -> Update:
    a, b, *magnitudes = (
        np.frombuffer(layer[ending].data, _BITS[layer[ending].dtype]).reshape(layer[ending].shape)
        for ending in (_A, _B, _MAGNITUDES)
        if ending in layer
    )
    return Update(a, b, *magnitudes)


def _turned(layer: _Layer) -> _Layer:
    """With the halves of its outputs the other way round."""
    turned = dict(layer)
    for ending in layer.keys() - {_A}:
        data = layer[ending].data
        turned[ending] = replace(layer[ending], data=data[len(data) // 2 :] + data[: len(data) // 2])
    return turned


def _kohya_layer(layer: _Layer) -> _Layer:
    a = layer[_A]
    found = {".lora_down.weight": a, ".lora_up.weight": layer[_B]}
    found[".alpha"] = StoredTensor("F32", (), struct.pack("<f", a.shape[0]))
    if _MAGNITUDES in layer:
        magnitudes = layer[_MAGNITUDES]
        # PEFT has [out] and [1, out, 1, 1].
        shape = (math.prod(magnitudes.shape), 1, *magnitudes.shape[2:])
        found[".dora_scale"] = replace(magnitudes, shape=shape)
    return found
