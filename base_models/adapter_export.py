"""An adapter file under the key names that other programs read. Imports no torch.

Its one rule: tensors keep their bytes; only names change, and the shapes of a DoRA's magnitudes. Equal tensors and
equal metadata make equal files, which the safetensors library does not promise of its headers.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from base_models.traits import FAMILIES

KeyNames = Literal["diffusers", "kohya"]

_A, _B, _MAGNITUDES = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector.weight"
_ALIGNMENT = 8


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a safetensors file holds it; `dtype` in that format's words."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


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
    """The tensors of an adapter file under the names of diffusers' `load_lora_weights` or of Kohya's scripts.

    pipeline: the base model's, one of FAMILIES.

    diffusers' own names are PEFT's, with the `text_model.` that a text encoder's layers have in most releases of
    transformers. Kohya's (sd-scripts, networks/lora.py) spell a layer's path with underscores, that in the denoiser as
    the code has it that the model was published with; each layer has its `alpha`, here the rank, and a DoRA's layer
    LyCORIS's `dora_scale`, [out, 1] or [out, 1, 1, 1].
    """
    denoiser = FAMILIES[pipeline].denoiser
    named = {_with_text_model(name, denoiser): tensor for name, tensor in tensors.items()}
    return named if key_names == "diffusers" else _kohya(named, pipeline)


def write_safetensors(tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file (https://github.com/huggingface/safetensors#format) with a header in order of its keys.

    `modelspec.hash_sha256` is added to the metadata: of everything behind the header, as ModelSpec has it.
    """
    data = b"".join(tensors[name].data for name in sorted(tensors))
    spec_hash = {"modelspec.hash_sha256": f"0x{hashlib.sha256(data).hexdigest()}"}
    header: dict[str, object] = {"__metadata__": dict(sorted((metadata | spec_hash).items()))}
    position = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, position := position + len(tensor.data)],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    # Spaces, so that what follows is aligned.
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text + data


def _with_text_model(name: str, denoiser: str) -> str:
    prefix, _, rest = name.partition(".")
    if prefix == denoiser or rest.startswith("text_model."):
        return name
    return f"{prefix}.text_model.{rest}"


def _kohya(tensors: Mapping[str, StoredTensor], pipeline: str) -> dict[str, StoredTensor]:
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(_A):
            layer = _kohya_layer(name.removesuffix(_A), pipeline)
            found[f"{layer}.lora_down.weight"] = tensor
            found[f"{layer}.alpha"] = StoredTensor("F32", (), struct.pack("<f", tensor.shape[0]))
        elif name.endswith(_B):
            found[f"{_kohya_layer(name.removesuffix(_B), pipeline)}.lora_up.weight"] = tensor
        else:
            # PEFT has [out] and [1, out, 1, 1].
            shape = (len(tensor.data) // _itemsize(tensor), 1, *tensor.shape[2:])
            found[f"{_kohya_layer(name.removesuffix(_MAGNITUDES), pipeline)}.dora_scale"] = replace(tensor, shape=shape)
    return found


def _itemsize(tensor: StoredTensor) -> int:
    return {"F32": 4, "F16": 2, "BF16": 2}[tensor.dtype]


def _kohya_layer(layer: str, pipeline: str) -> str:
    prefix, _, path = layer.partition(".")
    traits = FAMILIES[pipeline]
    if prefix == traits.denoiser:
        path = traits.kohya_place(path).name
    return f"{traits.kohya_prefixes[prefix]}_{path.replace('.', '_')}"
