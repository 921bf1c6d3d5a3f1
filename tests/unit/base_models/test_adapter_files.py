"""The rules by which an adapter file from anywhere is read: nothing but tensors that fit the base model."""

import json
import math
import pickle
import struct
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from base_models.adapters.adapter_file import AdapterInvalid, adapter_rank, read_adapter, write_adapter
from base_models.adapters.adapter_rules import MAX_RANK


class Denoiser(nn.Module):
    """Has one layer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.LayerNorm(4)
        self.plain_norm = nn.LayerNorm(4, elementwise_affine=False)


class TextEncoder(nn.Module):
    """Has one layer, called as one of the denoiser is but of another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)


MODULES = {"unet": Denoiser(), "text_encoder": TextEncoder()}
_LINEAR_M, _CONV_M = "unet.linear.lora_magnitude_vector.weight", "unet.conv.lora_magnitude_vector.weight"
MAGNITUDES = {_LINEAR_M: torch.ones(4), _CONV_M: torch.ones(1, 5, 1, 1)}
TEXT_LORA = {"linear.lora_A.weight": torch.ones(2, 8), "linear.lora_B.weight": torch.ones(8, 2)}


def _lora(rank: int = 2) -> dict[str, Tensor]:
    return {
        "linear.lora_A.weight": torch.ones(rank, 6),
        "linear.lora_B.weight": torch.ones(4, rank),
        "conv.lora_A.weight": torch.ones(rank, 3, 3, 3),
        "conv.lora_B.weight": torch.ones(5, rank, 1, 1),
    }


def _file(changes: dict[str, Tensor | None] | None = None, metadata: dict[str, str] | None = None) -> bytes:
    tensors = {f"unet.{name}": tensor for name, tensor in _lora().items()} | (changes or {})
    return safetensors.torch.save({name: tensor for name, tensor in tensors.items() if tensor is not None}, metadata)


def _with_header(header: Any) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def test_what_is_written_is_read_with_the_scale_folded_in() -> None:
    tensors = read_adapter(write_adapter({"unet": _lora()}, scale=0.5), MODULES)
    assert tensors.keys() == {f"unet.{name}" for name in _lora()}
    assert torch.equal(tensors["unet.linear.lora_A.weight"], torch.ones(2, 6))
    assert torch.equal(tensors["unet.conv.lora_B.weight"], torch.full((5, 2, 1, 1), 0.5))
    assert adapter_rank(tensors) == 2


def test_a_dora_is_read_and_its_magnitudes_are_not_scaled() -> None:
    dora = _lora() | {name.removeprefix("unet.").removesuffix(".weight"): tensor for name, tensor in MAGNITUDES.items()}
    tensors = read_adapter(write_adapter({"unet": dora}, scale=0.5), MODULES)
    assert tensors.keys() == {f"unet.{name}" for name in _lora()} | MAGNITUDES.keys()
    for name, magnitudes in MAGNITUDES.items():
        assert torch.equal(tensors[name], magnitudes)
    assert adapter_rank(tensors) == 2


def test_each_tensor_is_checked_against_the_module_of_its_prefix() -> None:
    body = write_adapter({"unet": _lora(), "text_encoder": TEXT_LORA}, scale=1.0)
    names = {f"unet.{name}" for name in _lora()} | {f"text_encoder.{name}" for name in TEXT_LORA}
    assert read_adapter(body, MODULES).keys() == names
    with pytest.raises(AdapterInvalid, match=r"unknown key 'text_encoder.*allowed is unet\.<module>"):
        read_adapter(body, {"unet": Denoiser()})
    with pytest.raises(AdapterInvalid, match=r"text_encoder\.linear: shapes"):
        read_adapter(body, {"unet": Denoiser(), "text_encoder": Denoiser()})


def test_an_adapter_of_a_denoiser_that_wears_another_is_read() -> None:
    from peft import LoraConfig, inject_adapter_in_model

    worn = inject_adapter_in_model(LoraConfig(r=1, target_modules=["linear", "conv"]), Denoiser())
    assert read_adapter(_file(), {"unet": worn}).keys() == {f"unet.{name}" for name in _lora()}


def test_header_metadata_is_not_looked_at() -> None:
    hostile = {"init_lora_weights": "pissa", "target_modules": "(a+)+$", "lora_alpha": "NaN", "r": "200000"}
    assert read_adapter(_file(metadata=hostile), MODULES).keys() == {f"unet.{name}" for name in _lora()}


_A, _B = "unet.linear.lora_A.weight", "unet.linear.lora_B.weight"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({_A: None}, "without its other half"),
        ({_B: None}, "without its other half"),
        ({_A: torch.ones(2, 7)}, "shapes"),
        ({_A: torch.ones(3, 6)}, "shapes"),
        ({_A: torch.ones(2, 6, 1)}, "shapes"),
        ({_A: torch.tensor(1.0)}, "rank 0"),
        ({_A: torch.ones(0, 6), _B: torch.ones(4, 0)}, "rank 0"),
        ({_A: torch.ones(4096, 6), _B: torch.ones(4, 4096)}, f"rank 4096; allowed is 1 to {MAX_RANK}"),
        ({_A: torch.full((2, 6), math.nan)}, "norm"),
        ({_B: torch.full((4, 2), math.inf)}, "norm"),
        ({_A: torch.full((2, 6), 3e38), _B: torch.full((4, 2), 3e38)}, "norm"),
        ({_A: torch.full((2, 6), 1e4)}, "norm"),
        ({_A: torch.ones(2, 6, dtype=torch.int64)}, "I64"),
        ({_A: torch.ones(2, 6, dtype=torch.float64)}, "F64"),
        (
            {"unet.other.lora_A.weight": torch.ones(1, 1), "unet.other.lora_B.weight": torch.ones(1, 1)},
            "no such module",
        ),
        ({"unet.norm.lora_A.weight": torch.ones(1), "unet.norm.lora_B.weight": torch.ones(4, 1)}, "no such module"),
        ({"unet..lora_A.weight": torch.ones(1, 1), "unet..lora_B.weight": torch.ones(1, 1)}, "no such module"),
        ({"unet.linear.weight": torch.ones(4, 6)}, "unknown key"),
        ({"unet.linear.alpha": torch.tensor(1.0)}, "unknown key"),
        ({"unet.linear.lora_A.default.weight": torch.ones(2, 6)}, "unknown key"),
        ({"unet.linear.lora_magnitude_vector": torch.ones(4)}, "unknown key"),
        ({"unet.lora_A.weight": torch.ones(2, 6)}, "unknown key"),
        ({"text_encoder_2.linear.lora_A.weight": torch.ones(2, 8)}, "unknown key"),
        ({"text_encoder.linear.lora_A.weight": torch.ones(2, 8)}, "without its other half"),
        ({f"unet.{'k' * 5_000}.lora_A.weight": torch.ones(1, 1)}, "without its other half"),
        ({_LINEAR_M: torch.ones(4)}, "has no lora_magnitude_vector"),
        (MAGNITUDES | {_A: None, _B: None}, "without its other half"),
        (
            MAGNITUDES | {f"text_encoder.{name}": tensor for name, tensor in TEXT_LORA.items()},
            "text_encoder.linear: has no lora_magnitude_vector",
        ),
        (MAGNITUDES | {_LINEAR_M: torch.ones(5)}, "magnitude vector of shape"),
        (MAGNITUDES | {_LINEAR_M: torch.tensor(1.0)}, "magnitude vector of shape"),
        (MAGNITUDES | {_CONV_M: torch.ones(5)}, "magnitude vector of shape"),
        (
            MAGNITUDES | {_CONV_M: torch.full((1, 5, 1, 1), math.nan)},
            "magnitudes have norm",
        ),
        (MAGNITUDES | {_LINEAR_M: torch.full((4,), math.inf)}, "magnitudes have norm"),
        (MAGNITUDES | {_LINEAR_M: torch.full((4,), 5e3)}, "magnitudes have norm"),
        ({"k" * 5_000: torch.ones(1)}, "unknown key"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(changes: dict[str, Tensor | None], reason: str) -> None:
    with pytest.raises(AdapterInvalid, match=reason) as caught:
        read_adapter(_file(changes), MODULES)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"1234567",
        pickle.dumps({"state_dict": [1, 2, 3]}),
        _file()[:-1],
        _file() + b"x",
        _with_header({}),
        _with_header({"__metadata__": {"format": "pt"}}),
        _with_header([]),
        _with_header(b"\xff\xfe"),
        _with_header(b"[" * 100_000),
        _with_header({_A: {"dtype": "F32", "shape": [2, 6], "data_offsets": [0, 2**62]}}),
        _with_header({_A: {"dtype": ["F32"], "shape": [2, 6], "data_offsets": [0, 48]}}),
        _with_header({_A: {"shape": [2, 6]}}),
        _with_header({_A: 5}),
        struct.pack("<Q", 90 * 1024 * 1024) + b" " * 1024,
        struct.pack("<Q", 2**64 - 1),
        _with_header(b" " * 5 * 1024 * 1024 + b"{}"),
        safetensors.torch.save({}),
    ],
    ids=lambda body: f"{len(body)}-bytes-{body[:12].hex()}",
)
def test_bytes_that_are_no_adapter_file_are_refused(body: bytes) -> None:
    with pytest.raises(AdapterInvalid):
        read_adapter(body, MODULES)
