"""FLUX.1's adapters as files of other programs, which have several of its layers as one, there and back. No torch."""

from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from base_models.adapters.adapter_export import NotExportable, renamed, stored_tensors, write_safetensors
from base_models.adapters.adapter_import import import_adapter
from base_models.adapters.adapter_rules import AdapterInvalid
from tests.flux_layers import FLUX, SHAPES, TARGETS, WIDTH, Tensors, adapter, pair, targeted, update
from tests.lora_files import bare, file

BLOCK = "transformer.transformer_blocks.0"
SINGLE = "transformer.single_transformer_blocks.10"
QKV = [f"{BLOCK}.attn.to_{name}" for name in "qkv"]
LINEAR1 = [*(f"{SINGLE}.attn.to_{name}" for name in "qkv"), f"{SINGLE}.proj_mlp"]
KOHYA_QKV = "lora_unet_double_blocks_0_img_attn_qkv"
KOHYA_LINEAR1 = "lora_unet_single_blocks_10_linear1"
UP, DOWN = f"{KOHYA_QKV}.lora_up.weight", f"{KOHYA_QKV}.lora_down.weight"
EVERYTHING = [layer for layer in SHAPES if layer.startswith("transformer.")]


def exported(tensors: Tensors, key_names: Any = "kohya") -> bytes:
    return write_safetensors(renamed(stored_tensors(file(tensors)), key_names, FLUX), {})


def imported(tensors: Tensors) -> Tensors:
    return safetensors.numpy.load(import_adapter(file(tensors), SHAPES, FLUX).body)


def assert_equal(found: Tensors, wanted: Tensors) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert np.array_equal(found[name], tensor), name


def fused(name: str, layers: list[str], rank: int = 3, ending: str = "lora_up.weight") -> tuple[Tensors, Any]:
    """A random update of layers that are one, as another program has it, and what it adds to them."""
    a, b = pair(sum(SHAPES[layer][0] for layer in layers), WIDTH, rank)
    other = {"lora_up.weight": "lora_down.weight", "lora_B.weight": "lora_A.weight"}[ending]
    return {f"{name}.{other}": a, f"{name}.{ending}": b}, b.astype(np.float64) @ a.astype(np.float64)


@pytest.mark.parametrize("key_names", ["diffusers", "kohya"])
@pytest.mark.parametrize("ranks", [(2,), (1, 3, 2)], ids=["one-rank", "several-ranks"])
@pytest.mark.parametrize(
    "layers",
    [
        *(targeted(endings) for endings in TARGETS.values()),
        EVERYTHING,
        [QKV[1]],
        [QKV[0], QKV[2], LINEAR1[3]],
        list(SHAPES),
    ],
    ids=[*TARGETS, "everything", "one-part", "some-parts", "with-text-encoder"],
)
def test_an_export_imported_again_is_the_adapter(layers: list[str], ranks: tuple[int, ...], key_names: Any) -> None:
    wanted = adapter(layers, ranks=ranks)
    again = import_adapter(exported(wanted, key_names), SHAPES, FLUX)
    assert_equal(safetensors.numpy.load(again.body), wanted)
    assert again.rank == max(ranks[: len(layers)])


def test_kohyas_names_are_those_of_the_published_code() -> None:
    names = safetensors.numpy.load(exported(adapter(EVERYTHING)))
    double = ["img_attn_qkv", "txt_attn_qkv", "img_attn_proj", "txt_attn_proj"]
    double += ["img_mlp_0", "img_mlp_2", "txt_mlp_0", "txt_mlp_2"]
    layers = [f"lora_unet_double_blocks_{block}_{name}" for block in (0, 1) for name in double]
    layers += [f"lora_unet_single_blocks_{block}_{name}" for block in (0, 10) for name in ("linear1", "linear2")]
    layers += ["lora_unet_final_layer_linear", "lora_unet_final_layer_adaLN_modulation_1"]
    kinds = ("lora_down.weight", "lora_up.weight", "alpha")
    assert names.keys() == {f"{layer}.{kind}" for layer in layers for kind in kinds}


def test_a_fused_layer_has_the_sum_of_ranks_its_own_alpha_and_zeros_for_what_is_not_adapted() -> None:
    tensors = adapter([LINEAR1[0], LINEAR1[2]], ranks=(2, 3))
    whole = safetensors.numpy.load(exported(tensors))
    a, b = whole[f"{KOHYA_LINEAR1}.lora_down.weight"], whole[f"{KOHYA_LINEAR1}.lora_up.weight"]
    assert (a.shape, b.shape, whole[f"{KOHYA_LINEAR1}.alpha"]) == ((5, WIDTH), (7 * WIDTH, 5), 5)
    wanted = np.concatenate([update(tensors, layer) for layer in LINEAR1])
    assert np.allclose(b.astype(np.float64) @ a, wanted, rtol=0, atol=1e-12)
    assert not b[WIDTH : 2 * WIDTH].any()
    assert not b[3 * WIDTH :].any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(("name", "layers"), [(KOHYA_QKV, QKV), (KOHYA_LINEAR1, LINEAR1)])
def test_another_programs_fused_layer_is_cut_exactly_and_comes_back_as_it_was(
    name: str, layers: list[str], dtype: Any
) -> None:
    """Its alpha, half of the rank, is folded in."""
    whole, dense = fused(name, layers, rank=4)
    whole = {key: tensor.astype(dtype) for key, tensor in whole.items()}
    down, up = whole[f"{name}.lora_down.weight"], whole[f"{name}.lora_up.weight"]
    found = imported(whole | {f"{name}.alpha": np.array(2, dtype)})
    assert np.allclose(np.concatenate([update(found, layer) for layer in layers]), dense / 2, atol=2e-4)
    assert all(np.array_equal(found[f"{layer}.lora_A.weight"], down.astype(np.float32)) for layer in layers)
    rows = np.concatenate([found[f"{layer}.lora_B.weight"] for layer in layers])
    assert np.array_equal(rows, up.astype(np.float32) / 2)
    # The parts have one A, so it is written once.
    assert_equal(
        safetensors.numpy.load(exported(found)),
        {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up / 2, f"{name}.alpha": np.float32(4)},
    )


def test_bfloat16_and_minus_zeros_are_cut_as_well() -> None:
    whole, _ = fused(KOHYA_QKV, QKV)
    whole[UP][WIDTH : 2 * WIDTH] = -0.0
    upper = {name: (tensor.view("<u4") >> 16).astype("<u2") for name, tensor in whole.items()}
    header: dict[str, Any] = {}
    data = b""
    for name, bits in upper.items():
        header[name] = {"dtype": "BF16", "shape": bits.shape, "data_offsets": [len(data), len(data) + bits.nbytes]}
        data += bits.tobytes()
    found = safetensors.numpy.load(import_adapter(bare(header, data), SHAPES, FLUX).body)
    assert f"{QKV[1]}.lora_A.weight" not in found
    for number in (0, 2):
        rows = upper[UP][number * WIDTH : (number + 1) * WIDTH].astype("<u4") << 16
        assert np.array_equal(found[f"{QKV[number]}.lora_B.weight"], rows.view("<f4"))


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("diffusion_model.double_blocks.0.img_attn.qkv", "lora_B.weight"),
        ("double_blocks.0.img_attn.qkv", "lora_B.weight"),
        ("base_model.model.double_blocks.0.img_attn.qkv", "lora_B.weight"),
        (KOHYA_QKV, "lora_up.weight"),
        ("diffusion_model.double_blocks.0.img_attn.qkv", "lora_up.weight"),
    ],
)
def test_every_programs_name_of_a_fused_layer_is_known(name: str, ending: str) -> None:
    whole, dense = fused(name, QKV, ending=ending)
    assert np.allclose(np.concatenate([update(imported(whole), layer) for layer in QKV]), dense)


@pytest.mark.parametrize(
    "prefix", ["transformer.", "", "diffusion_model.", "base_model.model.", "base_model.model.transformer."]
)
def test_every_programs_name_of_diffusers_layers_is_known(prefix: str) -> None:
    wanted = adapter(EVERYTHING)
    assert_equal(
        imported({prefix + name.removeprefix("transformer."): tensor for name, tensor in wanted.items()}), wanted
    )


def test_the_halves_of_the_last_norm_change_places() -> None:
    """diffusers has the scale first, the published code the shift."""
    layer, name = "transformer.norm_out.linear", "lora_unet_final_layer_adaLN_modulation_1"
    tensors = adapter([layer], is_dora=True)
    whole = safetensors.numpy.load(exported(tensors))
    b = tensors[f"{layer}.lora_B.weight"]
    assert np.array_equal(whole[f"{name}.lora_up.weight"], np.concatenate([b[WIDTH:], b[:WIDTH]]))
    assert np.array_equal(whole[f"{name}.lora_down.weight"], tensors[f"{layer}.lora_A.weight"])
    assert_equal(imported(whole), tensors)


def test_a_dora_of_all_parts_is_exported_and_imported_again() -> None:
    wanted = adapter(targeted(TARGETS["all"]), is_dora=True)
    whole = safetensors.numpy.load(exported(wanted))
    assert whole[f"{KOHYA_LINEAR1}.dora_scale"].shape == (7 * WIDTH, 1)
    assert_equal(imported(whole), wanted)


def test_the_magnitudes_of_a_part_whose_direction_stays_are_kept() -> None:
    whole, _ = fused(KOHYA_QKV, QKV)
    whole[f"{KOHYA_QKV}.lora_up.weight"][:WIDTH] = 0
    magnitudes = np.arange(3 * WIDTH, dtype=np.float32)[:, None]
    found = imported(whole | {f"{KOHYA_QKV}.dora_scale": magnitudes})
    assert np.array_equal(found[f"{QKV[0]}.lora_magnitude_vector.weight"], magnitudes[:WIDTH, 0])
    assert found[f"{QKV[0]}.lora_A.weight"].shape == (1, WIDTH)
    assert not update(found, QKV[0]).any()


def test_magnitudes_may_come_by_part_where_the_matrices_come_as_a_whole() -> None:
    whole, dense = fused(KOHYA_QKV, QKV)
    magnitudes = {f"{layer}.lora_magnitude_vector.weight": np.ones(WIDTH, np.float32) for layer in QKV}
    found = imported(magnitudes | whole)
    assert found.keys() > magnitudes.keys()
    assert np.allclose(np.concatenate([update(found, layer) for layer in QKV]), dense)


def test_a_base_model_without_one_of_the_parts_has_not_the_whole() -> None:
    shapes = {layer: shape for layer, shape in SHAPES.items() if layer != QKV[1]}
    with pytest.raises(AdapterInvalid, match="the base model has no such module"):
        import_adapter(file(fused(KOHYA_QKV, [QKV[0], QKV[2]])[0]), shapes, FLUX)


@pytest.mark.parametrize(
    ("layers", "is_dora", "reason"),
    [
        (targeted(TARGETS["attention"]), True, "changes 3 of 4 parts"),
        ([QKV[0]], True, f"{KOHYA_QKV} is one layer there"),
    ],
)
def test_what_cannot_be_said_in_kohyas_names_is_refused_and_said_in_diffusers(
    layers: list[str], is_dora: bool, reason: str
) -> None:
    tensors = adapter(layers, is_dora=is_dora)
    with pytest.raises(NotExportable, match=reason) as caught:
        exported(tensors)
    assert "diffusers' names" in str(caught.value)
    assert_equal(safetensors.numpy.load(exported(tensors, "diffusers")), tensors)


def test_a_layer_that_the_published_model_has_not_is_refused() -> None:
    layer = "transformer.transformer_blocks.0.attn.to_gate"
    tensors = {f"{layer}.lora_A.weight": np.ones((1, 2)), f"{layer}.lora_B.weight": np.ones((2, 1))}
    with pytest.raises(NotExportable, match=f"{layer} has no name there"):
        exported(tensors)


DENSE, _ = fused(KOHYA_QKV, QKV)
NAN = np.full((3 * WIDTH, 3), np.nan, np.float32)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({UP: DENSE[UP]}, "has lora_B without its other half"),
        ({DOWN: DENSE[DOWN]}, "has lora_A without its other half"),
        (DENSE | {UP: DENSE[UP][:-1]}, f"the base model needs [3, {WIDTH}] and [{3 * WIDTH}, 3]"),
        (DENSE | {DOWN: DENSE[DOWN][:, :-1]}, "the base model needs"),
        (DENSE | {DOWN: np.array(1, np.float32)}, "rank 0; allowed is 1 to 128 for each, 384 together"),
        (DENSE | {UP: NAN}, "its update has norm nan"),
        (DENSE | {f"{KOHYA_QKV}.dora_scale": np.ones((WIDTH, 1), np.float32)}, "a magnitude vector of shape"),
        (DENSE | adapter([QKV[1]]), "is the same tensor as"),
        (fused(KOHYA_QKV, QKV, rank=129)[0], f"{QKV[0]}: rank 129; allowed is 1 to 128"),
        (fused(KOHYA_QKV, QKV, rank=400)[0], "rank 400; allowed is"),
        ({UP: 0 * DENSE[UP], DOWN: DENSE[DOWN]}, "the file holds no LoRA tensors"),
        ({"double_blocks.0.processor.qkv_lora1.down.weight": DENSE[DOWN]}, "belongs to XLabs' processors"),
        ({"single_blocks.0.processor.qkv_lora.up.weight": DENSE[DOWN]}, "belongs to XLabs' processors"),
        ({"lora_unet_double_blocks_2_img_attn_qkv.lora_up.weight": NAN}, "the base model has no such module"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tensors: Tensors, reason: str) -> None:
    with pytest.raises(AdapterInvalid) as caught:
        imported(tensors)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_rank_beyond_the_most_is_fine_where_no_part_has_it() -> None:
    wanted = adapter(QKV, ranks=(128,))
    whole = safetensors.numpy.load(exported(wanted))
    assert whole[DOWN].shape == (384, WIDTH)
    assert_equal(imported(whole), wanted)
