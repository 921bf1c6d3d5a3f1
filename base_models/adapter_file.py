"""The adapter file: how it is written, and the rules by which one from anywhere is read.

Its one rule: a file's header configures nothing. diffusers builds its LoRA configuration from header metadata, which
can change the base weights or hang the process; here only tensors are taken, and only those that fit the base model.
"""

import json
import struct
from collections.abc import Iterable, Mapping

import safetensors.torch
import torch
from torch import Tensor

MAX_RANK = 128
_MAX_HEADER_BYTES = 4 * 1024 * 1024
_DTYPES = {"F32", "F16", "BF16"}
_MAX_UPDATE_NORM = 1e4
_KINDS = {"A.weight": "A", "B.weight": "B", "magnitude_vector.weight": "magnitude_vector"}


class AdapterInvalid(Exception):
    """The file is not an adapter for this base model; the text says why."""


def write_adapter(parts: Mapping[str, Mapping[str, Tensor]], scale: float) -> bytes:
    """Bytes of a safetensors file: `{prefix}.{module}.lora_A.weight`, `…lora_B.weight`, and of a DoRA
    `…lora_magnitude_vector.weight` too.

    parts: the PEFT state dict of each module that was trained, by its prefix, for example `unet`. scale: alpha / rank;
    it is folded into B, so that a reader who knows no alpha (and takes alpha = rank) computes the same update.
    """
    tensors = {
        f"{prefix}.{_file_name(name)}": (tensor * scale if ".lora_B." in name else tensor)
        .detach()
        .float()
        .cpu()
        .contiguous()
        for prefix, lora in parts.items()
        for name, tensor in lora.items()
    }
    return safetensors.torch.save(tensors)


def read_adapter(body: bytes, modules: Mapping[str, torch.nn.Module]) -> dict[str, Tensor]:
    """Tensors of an adapter file, by the names it uses, each checked against its module. Raises AdapterInvalid.

    modules: what adapters may change, by the prefix of its keys; see BaseModel.adaptable. Only names and shapes are
    looked at, so they may be on the meta device.
    """
    _check_header(body)
    try:
        tensors = safetensors.torch.load(body)
    except Exception as error:
        raise AdapterInvalid(f"not a safetensors file: {error}") from error
    layers = _layers(tensors, modules)
    if not layers:
        raise AdapterInvalid("the file holds no LoRA tensors")
    # Norms and embeddings have weights too, but no LoRA.
    shapes = {
        f"{prefix}.{name}": layer.weight.shape
        for prefix, module in modules.items()
        for name, layer in module.named_modules()
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
    }
    is_dora = any("magnitude_vector" in halves for halves in layers.values())
    for name, halves in layers.items():
        if not {"A", "B"} <= halves.keys():
            raise AdapterInvalid(f"{name[:120]}: has lora_{min(halves)} without its other half")
        if is_dora and "magnitude_vector" not in halves:
            raise AdapterInvalid(f"{name[:120]}: has no lora_magnitude_vector, but other modules of the file do")
        base = shapes.get(name) or shapes.get(f"{name}.base_layer")
        if base is None:
            raise AdapterInvalid(f"{name[:120]}: the base model has no such module")
        _check_pair(name, halves["A"], halves["B"], base)
        if is_dora:
            _check_magnitudes(name, halves["magnitude_vector"], base)
    return tensors


def adapter_rank(tensors: dict[str, Tensor]) -> int:
    """The largest rank among an adapter's modules."""
    return max(tensor.shape[0] for name, tensor in tensors.items() if name.endswith(".lora_A.weight"))


def _file_name(peft_name: str) -> str:
    # PEFT takes this name with and without its end, transformers only with it.
    return f"{peft_name}.weight" if peft_name.endswith(".lora_magnitude_vector") else peft_name


def _check_header(body: bytes) -> None:
    if len(body) < 8:
        raise AdapterInvalid(f"{len(body)} bytes are no safetensors file")
    (length,) = struct.unpack("<Q", body[:8])
    if length > min(_MAX_HEADER_BYTES, len(body) - 8):
        raise AdapterInvalid(f"its header claims {length} bytes; allowed are {_MAX_HEADER_BYTES} within the file")
    try:
        header = json.loads(body[8 : 8 + length])
        dtypes = {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise AdapterInvalid("its header is not that of a safetensors file") from error
    if not dtypes <= _DTYPES:
        raise AdapterInvalid(
            f"holds {', '.join(sorted(map(str, dtypes - _DTYPES)))}; allowed are {', '.join(sorted(_DTYPES))}"
        )


def _layers(tensors: dict[str, Tensor], prefixes: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """Layer by layer, by the name with its prefix: tensors called A, B and magnitude_vector."""
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".lora_")
        half = _KINDS.get(kind)
        if half is None or not any(layer.startswith(f"{prefix}.") for prefix in prefixes):
            raise AdapterInvalid(
                f"unknown key {name[:120]!r}; allowed is {' or '.join(prefixes)}.<module>. "
                f"followed by {', '.join(f'lora_{kind}' for kind in _KINDS)}"
            )
        layers.setdefault(layer, {})[half] = tensor
    return layers


def _check_pair(name: str, a: Tensor, b: Tensor, base: torch.Size) -> None:
    """Linear: A [rank, in], B [out, rank]. Convolution: A [rank, in, kh, kw], B [out, rank, 1, 1]."""
    rank = a.shape[0] if a.dim() else 0
    if not 1 <= rank <= MAX_RANK:
        raise AdapterInvalid(f"{name}: rank {rank}; allowed is 1 to {MAX_RANK}")
    wanted_a, wanted_b = (rank, *base[1:]), (base[0], rank, *(1 for _ in base[2:]))
    if tuple(a.shape) != wanted_a or tuple(b.shape) != wanted_b:
        raise AdapterInvalid(
            f"{name}: shapes {list(a.shape)} and {list(b.shape)}; "
            f"the base model needs {list(wanted_a)} and {list(wanted_b)}"
        )
    bound = a.float().norm() * b.float().norm()
    # The comparison is false for NaN and infinity too.
    if not bound < _MAX_UPDATE_NORM:
        raise AdapterInvalid(
            f"{name}: its update has norm {bound:.3g} or more; allowed is below {_MAX_UPDATE_NORM:.0f}"
        )


def _check_magnitudes(name: str, magnitudes: Tensor, base: torch.Size) -> None:
    """Linear: [out]. Convolution: [1, out, 1, 1]."""
    wanted = (base[0],) if len(base) == 2 else (1, base[0], *(1 for _ in base[2:]))
    if tuple(magnitudes.shape) != wanted:
        raise AdapterInvalid(
            f"{name}: a magnitude vector of shape {list(magnitudes.shape)}; the base model needs {list(wanted)}"
        )
    norm = magnitudes.float().norm()
    if not norm < _MAX_UPDATE_NORM:
        raise AdapterInvalid(f"{name}: its magnitudes have norm {norm:.3g}; allowed is below {_MAX_UPDATE_NORM:.0f}")
