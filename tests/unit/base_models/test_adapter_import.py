"""What other programs' LoRA files become, and what is refused of them, each with the tensor's name. No torch."""

import math
import pickle
import struct
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from base_models.adapters.adapter_import import ImportedAdapter, import_adapter
from base_models.adapters.adapter_rules import MAX_RANK, AdapterInvalid
from tests.lora_files import CONVOLUTION, LINEAR, SHAPES, TEXT, TOON, Tensors, bare, file, halves, kohya, own

OUT, IN = SHAPES[LINEAR]
PATH = LINEAR.removeprefix("unet.")
BLOCK = PATH.removesuffix(".to_q")
TEXT_PATH = TEXT.removeprefix("text_encoder.")
K_LINEAR = f"lora_unet_{PATH.replace('.', '_')}"
K_CONV = "lora_unet_conv_in"


def imported(tensors: Tensors, metadata: dict[str, str] | None = None) -> ImportedAdapter:
    return import_adapter(file(tensors, metadata), SHAPES, TOON.pipeline)


def tensors_of(found: ImportedAdapter) -> Tensors:
    return safetensors.numpy.load(found.body)


def equal(found: Tensors, wanted: Tensors) -> bool:
    return found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    "names",
    [
        {f"{LINEAR}.lora_A.weight": "A", f"{LINEAR}.lora_B.weight": "B"},
        {f"{PATH}.lora_A.weight": "A", f"{PATH}.lora_B.weight": "B"},
        {f"base_model.model.{PATH}.lora_A.weight": "A", f"base_model.model.{PATH}.lora_B.weight": "B"},
        {f"base_model.model.{PATH}.lora_A.default.weight": "A", f"base_model.model.{PATH}.lora_B.default.weight": "B"},
        {f"{LINEAR}.lora.down.weight": "A", f"{LINEAR}.lora.up.weight": "B"},
        {
            f"unet.{BLOCK}.processor.to_q_lora.down.weight": "A",
            f"unet.{BLOCK}.processor.to_q_lora.up.weight": "B",
        },
        {f"{BLOCK}.processor.to_q_lora.down.weight": "A", f"{BLOCK}.processor.to_q_lora.up.weight": "B"},
        {f"{K_LINEAR}.lora_down.weight": "A", f"{K_LINEAR}.lora_up.weight": "B"},
        {f"{LINEAR}.lora_down.weight": "A", f"{LINEAR}.lora_up.weight": "B"},
    ],
    ids=lambda names: min(names),
)
def test_every_programs_name_of_a_layer_is_known(names: dict[str, str]) -> None:
    a, b = halves(LINEAR)
    found = tensors_of(imported({name: {"A": a, "B": b}[half] for name, half in names.items()}))
    assert equal(found, own(LINEAR))


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (f"text_encoder.text_model.{TEXT_PATH}.lora_A.weight", f"text_encoder.text_model.{TEXT_PATH}.lora_B.weight"),
        (
            f"text_encoder.text_model.{TEXT_PATH}.lora_linear_layer.down.weight",
            f"text_encoder.text_model.{TEXT_PATH}.lora_linear_layer.up.weight",
        ),
        (
            f"lora_te_text_model_{TEXT_PATH.replace('.', '_')}.lora_down.weight",
            f"lora_te_text_model_{TEXT_PATH.replace('.', '_')}.lora_up.weight",
        ),
    ],
)
def test_every_programs_name_of_a_text_encoders_layer_is_known(down: str, up: str) -> None:
    a, b = halves(TEXT)
    assert equal(tensors_of(imported({down: a, up: b})), own(TEXT))


def test_alpha_over_rank_is_folded_into_b_and_halves_become_float32() -> None:
    found = imported(kohya(rank=4, alpha=1.0))
    for name, tensor in own(rank=4).items():
        factor = 0.25 if ".lora_B." in name else 1.0
        mine = tensors_of(found)[name]
        assert mine.dtype == np.float32
        assert np.array_equal(mine, tensor.astype(np.float16).astype(np.float32) * np.float32(factor))
    assert (found.rank, found.targets) == (4, "all")
    whole = imported(kohya(rank=4, alpha=4.0, dtype=np.float32))
    assert equal(tensors_of(whole), own(rank=4))


def test_alphas_of_every_kind_of_number_count() -> None:
    for alpha in (np.array(1, np.int64), np.array([1.0], np.float64), np.array(1, np.float16), np.array(1, np.int32)):
        found = tensors_of(imported(kohya(LINEAR, alpha=2.0, dtype=np.float32) | {f"{K_LINEAR}.alpha": alpha}))
        assert np.array_equal(found[f"{LINEAR}.lora_B.weight"], halves(LINEAR)[1] / 2)


def test_bfloat16_is_read_as_the_upper_half_of_a_float32() -> None:
    upper = {name: tensor.view("<u4") >> 16 for name, tensor in own(LINEAR).items()}
    header: dict[str, Any] = {}
    data = b""
    for name, bits in upper.items():
        raw = bits.astype("<u2").tobytes()
        header[name] = {
            "dtype": "BF16",
            "shape": list(bits.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    found = tensors_of(import_adapter(bare(header, data), SHAPES, TOON.pipeline))
    assert equal(found, {name: (bits << 16).astype("<u4").view("<f4") for name, bits in upper.items()})


def test_layers_may_differ_in_rank_and_the_largest_is_the_adapters() -> None:
    mixed = own(LINEAR, rank=2) | own(CONVOLUTION, rank=8)
    found = imported(mixed)
    assert found.rank == 8
    assert equal(tensors_of(found), mixed)


@pytest.mark.parametrize(
    ("layers", "targets"),
    [
        ([LINEAR], "attention"),
        ([TEXT], "attention"),
        ([LINEAR, "unet.mid_block.resnets.0.conv1"], "attention_and_convolution"),
        ([LINEAR, CONVOLUTION], "all"),
        ([LINEAR, "unet.mid_block.resnets.0.time_emb_proj"], "all"),
    ],
)
def test_targets_are_the_fewest_that_take_in_every_layer(layers: list[str], targets: str) -> None:
    assert imported(own(*layers)).targets == targets


def test_equal_tensors_make_equal_files_and_metadata_configures_nothing() -> None:
    hostile = {"init_lora_weights": "pissa", "target_modules": "(a+)+$", "lora_alpha": "NaN", "ss_network_alpha": "9"}
    assert imported(own(), hostile) == imported(dict(reversed(own().items())))
    assert equal(tensors_of(imported(own(), hostile)), own())


def _dora(shape: tuple[int, ...]) -> Tensors:
    return kohya(LINEAR) | {f"{K_LINEAR}.dora_scale": np.ones(shape, np.float32)}


def test_the_magnitudes_of_a_dora_come_in_lycoris_shape() -> None:
    found = tensors_of(imported(_dora((OUT, 1))))
    assert found[f"{LINEAR}.lora_magnitude_vector.weight"].shape == (OUT,)
    convolution = kohya(CONVOLUTION) | {f"{K_CONV}.dora_scale": np.ones((64, 1, 1, 1), np.float32)}
    found = tensors_of(imported(convolution))
    assert found[f"{CONVOLUTION}.lora_magnitude_vector.weight"].shape == (1, 64, 1, 1)


A, B, DOWN = f"{LINEAR}.lora_A.weight", f"{LINEAR}.lora_B.weight", f"{K_LINEAR}.lora_down.weight"
ONES = np.ones((2, 2), np.float32)


def _without(tensors: Tensors, name: str) -> Tensors:
    return {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        (_without(own(LINEAR), B), f"{LINEAR}: has lora_A without"),
        (_without(own(LINEAR), A), f"{LINEAR}: has lora_B without"),
        (_without(kohya(LINEAR), DOWN), f"{K_LINEAR}.alpha: is the alpha of a layer"),
        ({f"{K_LINEAR}.alpha": np.array(1.0)}, f"{K_LINEAR}.alpha: is the alpha of a layer"),
        (own(LINEAR) | {A: np.ones((2, IN + 1), np.float32)}, f"{LINEAR}: shapes"),
        (own(LINEAR) | {A: np.ones((3, IN), np.float32)}, f"{LINEAR}: shapes"),
        (own(LINEAR) | {A: np.ones((2, IN, 1, 1), np.float32)}, f"{LINEAR}: shapes"),
        (own(LINEAR) | {A: np.array(1.0, np.float32)}, f"{LINEAR}: rank 0"),
        (kohya(LINEAR) | {DOWN: np.ones((0, IN), np.float16)}, f"{LINEAR}: rank 0"),
        (
            {A: np.ones((4096, IN), np.float32), B: np.ones((OUT, 4096), np.float32)},
            f"{LINEAR}: rank 4096; allowed is 1 to {MAX_RANK}",
        ),
        (own(LINEAR) | {A: np.full((2, IN), math.nan, np.float32)}, f"{LINEAR}: its update has norm nan"),
        (own(LINEAR) | {B: np.full((OUT, 2), math.inf, np.float32)}, f"{LINEAR}: its update has norm inf"),
        (own(LINEAR) | {A: np.full((2, IN), 3e38, np.float32)}, f"{LINEAR}: its update has norm"),
        (kohya(LINEAR) | {DOWN: np.full((2, IN), math.nan, np.float16)}, f"{LINEAR}: its update has norm nan"),
        (own(LINEAR) | {A: np.ones((2, IN), np.float64)}, f"{A}: holds F64"),
        (own(LINEAR) | {A: np.ones((2, IN), np.int8)}, f"{A}: holds I8"),
        (kohya(LINEAR, alpha=math.nan), f"{K_LINEAR}.alpha: alpha nan"),
        (kohya(LINEAR, alpha=math.inf), f"{K_LINEAR}.alpha: alpha inf"),
        (kohya(LINEAR, alpha=0.0), f"{K_LINEAR}.alpha: alpha 0;"),
        (kohya(LINEAR, alpha=-1.0), f"{K_LINEAR}.alpha: alpha -1;"),
        (kohya(LINEAR, dtype=np.float32) | {f"{K_LINEAR}.alpha": np.array(1e38)}, f"{LINEAR}: its update has norm"),
        (kohya(LINEAR) | {f"{K_LINEAR}.alpha": np.ones(2, np.float32)}, f"{K_LINEAR}.alpha: F32 of shape"),
        (kohya(LINEAR) | {f"{K_LINEAR}.alpha": np.array(True)}, f"{K_LINEAR}.alpha: BOOL of shape"),
        (own(LINEAR) | {"unet.other.lora_A.weight": ONES}, "unet.other.lora_A.weight: the base model has no such"),
        ({"lora_unet_other.lora_down.weight": ONES}, "lora_unet_other.lora_down.weight: the base model has no such"),
        ({"text_encoder_2.encoder.lora_A.weight": ONES}, "text_encoder_2.encoder.lora_A.weight: the base model"),
        ({"lora_te2_text_model_x.alpha": ONES}, "lora_te2_text_model_x.alpha: the base model has no such"),
        ({"unet.conv_norm_out.lora_A.weight": ONES}, "the base model has no such"),
        ({"text_encoder.embeddings.token_embedding.lora_A.weight": ONES}, "the base model has no such"),
        (own(LINEAR) | kohya(LINEAR), "is the same tensor as"),
        (own(LINEAR) | {f"{PATH}.lora_A.weight": halves(LINEAR)[0]}, "is the same tensor as"),
        ({f"{K_LINEAR}.hada_w1_a": ONES}, "hada_w1_a: belongs to a LoHa"),
        ({f"{K_LINEAR}.lokr_w1": ONES}, "lokr_w1: belongs to a LoKr"),
        (kohya(CONVOLUTION) | {f"{K_CONV}.lora_mid.weight": ONES}, "Tucker"),
        ({f"{K_LINEAR}.oft_blocks": ONES}, "an OFT"),
        ({f"{K_LINEAR}.diff": ONES}, "a difference of whole weights"),
        (own(LINEAR) | {f"{LINEAR}.lora_B.bias": ONES}, "a LoRA with biases"),
        (_dora((1, IN)), "dora_scale: magnitudes of shape"),
        (_dora((OUT + 1, 1)), f"{LINEAR}: a magnitude vector of shape"),
        (_dora((OUT, 1)) | kohya(CONVOLUTION), f"{CONVOLUTION}: has no lora_magnitude_vector"),
        ({"unet.conv_in.weight": ONES}, "unknown key 'unet.conv_in.weight'"),
        ({"": ONES}, "unknown key ''"),
        ({"k" * 5000: ONES}, "unknown key 'kkk"),
        ({}, "no LoRA tensors"),
    ],
)
def test_what_is_no_lora_for_the_base_model_is_refused_by_name(tensors: Tensors, reason: str) -> None:
    with pytest.raises(AdapterInvalid) as caught:
        imported(tensors)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400


def _entry(start: int, stop: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "0 bytes"),
        (b"1234567", "7 bytes"),
        (pickle.dumps({"state_dict": [1, 2, 3]}), "its header claims"),
        (file(own())[:-1], "bytes behind its header"),
        (file(own()) + b"x", "bytes behind its header"),
        (struct.pack("<Q", 90 * 1024 * 1024) + b" " * 1024, "its header claims 94371840 bytes"),
        (bare(b" " * 5 * 1024 * 1024 + b"{}"), "its header claims"),
        (bare([]), "its header is not"),
        (bare(b"\xff\xfe"), "its header is not"),
        (bare(b"[" * 100_000), "its header is not"),
        (bare(b'{"a":' * 100_000), "its header is not"),
        (bare({A: 5}), "does not say what"),
        (bare({A: {"dtype": "F32", "shape": [1]}}), "does not say what"),
        (bare({A: _entry(0, 4, [1], "F7")}, bytes(4)), "does not say what"),
        (bare({A: _entry(0, 4, [True])}, bytes(4)), "does not say what"),
        (bare({A: _entry(0, 4, [-1])}, bytes(4)), "does not say what"),
        (bare({A: _entry(0, 2**62, [2**60])}), "does not say what"),
        (bare({A: _entry(0, 4, [10**300] * 9)}, bytes(4)), "does not say what"),
        (bare({A: _entry(0, 4, [2])}, bytes(4)), "its offsets hold 4 bytes; its shape needs 8"),
        (bare({A: _entry(4, 0, [1])}, bytes(4)), "its offsets hold -4 bytes"),
        (bare({A: _entry(0, 4, [1]), B: _entry(0, 4, [1])}, bytes(4)), "its bytes begin at offset 0; allowed is 4"),
        (bare({A: _entry(4, 8, [1])}, bytes(8)), "its bytes begin at offset 4; allowed is 0"),
        (bare(f'{{"{A}": {{}}, "{A}": {{}}}}'.encode()), "twice"),
        (bare({"\ud800.lora_A.weight": _entry(0, 0, [0])}), "allowed are printable"),
        (bare({"__metadata__": {"format": "pt"}}), "no LoRA tensors"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)}-bytes",
)
def test_bytes_that_are_no_safetensors_file_are_refused(body: bytes, reason: str) -> None:
    with pytest.raises(AdapterInvalid) as caught:
        import_adapter(body, SHAPES, TOON.pipeline)
    assert reason in str(caught.value)
