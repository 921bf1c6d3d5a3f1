"""The adapter file: how it is written, and the rules by which one from anywhere is read.

Its one rule: a file's header configures nothing. diffusers builds its LoRA configuration from header metadata, which
can change the base weights or hang the process; here only tensors are taken, and only those that fit the denoiser.
"""

import json
import struct

import safetensors.torch
import torch
from torch import Tensor

MAX_RANK = 128
_MAX_HEADER_BYTES = 4 * 1024 * 1024
_DTYPES = {"F32", "F16", "BF16"}
_MAX_UPDATE_NORM = 1e4


class AdapterInvalid(Exception):
    """The file is not an adapter for this denoiser; the text says why."""


def write_adapter(lora: dict[str, Tensor], prefix: str, scale: float) -> bytes:
    """Bytes of a safetensors file with PEFT names, `{prefix}.{module}.lora_{A,B}.weight`.

    lora: a PEFT state dict of the denoiser. scale: alpha / rank; it is folded into B, so that a reader who knows no
    alpha (and takes alpha = rank) computes the same update.
    """
    tensors = {
        f"{prefix}.{name}": (tensor * scale if ".lora_B." in name else tensor).detach().float().cpu().contiguous()
        for name, tensor in lora.items()
    }
    return safetensors.torch.save(tensors)


def read_adapter(body: bytes, denoiser: torch.nn.Module, prefix: str) -> dict[str, Tensor]:
    """Tensors of an adapter file, by the names it uses, each checked against the denoiser. Raises AdapterInvalid."""
    _check_header(body)
    try:
        tensors = safetensors.torch.load(body)
    except Exception as error:
        raise AdapterInvalid(f"not a safetensors file: {error}") from error
    modules = _pairs(tensors, prefix)
    if not modules:
        raise AdapterInvalid("the file holds no LoRA tensors")
    # Norms and embeddings have weights too, but no LoRA.
    layers = (torch.nn.Linear, torch.nn.Conv2d)
    shapes = {name: module.weight.shape for name, module in denoiser.named_modules() if isinstance(module, layers)}
    for name, pair in modules.items():
        if pair.keys() != {"A", "B"}:
            raise AdapterInvalid(f"{name}: has lora_{next(iter(pair))} without its other half")
        base = shapes.get(name) or shapes.get(f"{name}.base_layer")
        if base is None:
            raise AdapterInvalid(f"{name}: the base model has no such module")
        _check_pair(name, pair["A"], pair["B"], base)
    return tensors


def adapter_rank(tensors: dict[str, Tensor]) -> int:
    """The largest rank among an adapter's modules."""
    return max(tensor.shape[0] for name, tensor in tensors.items() if name.endswith(".lora_A.weight"))


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


def _pairs(tensors: dict[str, Tensor], prefix: str) -> dict[str, dict[str, Tensor]]:
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, separator, half = name.removesuffix(".weight").rpartition(".lora_")
        if (
            not separator
            or half not in ("A", "B")
            or not name.endswith(".weight")
            or not module.startswith(f"{prefix}.")
        ):
            raise AdapterInvalid(
                f"unknown key {name[:120]!r}; allowed is {prefix}.<module>.lora_A.weight or lora_B.weight"
            )
        modules.setdefault(module.removeprefix(f"{prefix}."), {})[half] = tensor
    return modules


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
