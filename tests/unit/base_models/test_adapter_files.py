"""The rules by which an adapter file from anywhere is read: nothing but tensors that fit the denoiser."""

import json
import math
import pickle
import struct
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from base_models.adapter_file import MAX_RANK, AdapterInvalid, adapter_rank, read_adapter, write_adapter


class Denoiser(nn.Module):
    """Has one layer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.LayerNorm(4)
        self.plain_norm = nn.LayerNorm(4, elementwise_affine=False)


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
    tensors = read_adapter(write_adapter(_lora(), "unet", scale=0.5), Denoiser(), "unet")
    assert tensors.keys() == {f"unet.{name}" for name in _lora()}
    assert torch.equal(tensors["unet.linear.lora_A.weight"], torch.ones(2, 6))
    assert torch.equal(tensors["unet.conv.lora_B.weight"], torch.full((5, 2, 1, 1), 0.5))
    assert adapter_rank(tensors) == 2


def test_an_adapter_of_a_denoiser_that_wears_another_is_read() -> None:
    from peft import LoraConfig, inject_adapter_in_model

    worn = inject_adapter_in_model(LoraConfig(r=1, target_modules=["linear", "conv"]), Denoiser())
    assert read_adapter(_file(), worn, "unet").keys() == {f"unet.{name}" for name in _lora()}


def test_header_metadata_is_not_looked_at() -> None:
    hostile = {"init_lora_weights": "pissa", "target_modules": "(a+)+$", "lora_alpha": "NaN", "r": "200000"}
    assert read_adapter(_file(metadata=hostile), Denoiser(), "unet").keys() == {f"unet.{name}" for name in _lora()}


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
        ({"unet.linear.lora_magnitude_vector.weight": torch.ones(4)}, "unknown key"),
        ({"text_encoder.linear.lora_A.weight": torch.ones(2, 6)}, "unknown key"),
        ({"k" * 5_000: torch.ones(1)}, "unknown key"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(changes: dict[str, Tensor | None], reason: str) -> None:
    with pytest.raises(AdapterInvalid, match=reason) as caught:
        read_adapter(_file(changes), Denoiser(), "unet")
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
        read_adapter(body, Denoiser(), "unet")
