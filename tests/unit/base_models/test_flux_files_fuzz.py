"""Any tensors under the names that FLUX.1's files have: an adapter that adds the same to the weights, or a refusal."""

from typing import Any

import numpy as np
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from base_models.adapters.adapter_import import import_adapter
from base_models.adapters.adapter_rules import AdapterInvalid, check_layers, layers_of
from tests.flux_layers import FLUX, SHAPES, WIDTH, Tensors, update
from tests.lora_files import file

QKV = [f"transformer.transformer_blocks.0.attn.to_{name}" for name in "qkv"]
SINGLE = "transformer.single_transformer_blocks.0"
LINEAR1 = [*(f"{SINGLE}.attn.to_{name}" for name in "qkv"), f"{SINGLE}.proj_mlp"]
TURNED = "lora_unet_final_layer_adaLN_modulation_1"
PLACES = {
    "lora_unet_double_blocks_0_img_attn_qkv": QKV,
    "diffusion_model.double_blocks.0.img_attn.qkv": QKV,
    QKV[1]: QKV[1:2],
    "lora_unet_single_blocks_0_linear1": LINEAR1,
    "diffusion_model.single_blocks.0.linear1": LINEAR1,
    TURNED: ["transformer.norm_out.linear"],
}
SIDES = [0, 1, 2, WIDTH, 3 * WIDTH, 7 * WIDTH]
FITTING, ANY = (0.0, -0.0, 0.25, -1.0), (1e30, float("inf"), float("nan"), 0.5)


@st.composite
def files(draw: Any) -> Tensors:
    """Mostly what fits; sometimes a tensor of any shape or values, or one too few."""
    tensors: Tensors = {}
    places = draw(st.lists(st.sampled_from(sorted(PLACES)), min_size=1, max_size=2, unique=True))
    extra = draw(st.sampled_from(["", "alpha", "dora_scale"]))
    for place in places:
        rank, outputs = draw(st.integers(1, 3)), sum(SHAPES[layer][0] for layer in PLACES[place])
        shapes = {"lora_down.weight": (rank, WIDTH), "lora_up.weight": (outputs, rank)}
        shapes |= {"alpha": {"alpha": ()}, "dora_scale": {"dora_scale": (outputs, 1)}}.get(extra, {})
        for ending, shape in shapes.items():
            dice = np.random.default_rng(draw(st.integers(0, 99)))
            values = np.asarray(dice.choice(FITTING[2:3] if ending == "alpha" else FITTING, shape))
            # Often no rank is of the first of the parts.
            if ending == "lora_up.weight" and draw(st.booleans()):
                values[:WIDTH] = 0
            match draw(st.integers(0, 30)):
                case 0:
                    values = np.zeros(draw(st.lists(st.sampled_from(SIDES), max_size=3)))
                case 1:
                    values = np.asarray(dice.choice(ANY, shape))
                case 2:
                    continue
            with np.errstate(over="ignore"):
                tensors[f"{place}.{ending}"] = values.astype(draw(st.sampled_from([np.float32, np.float16])))
    return tensors


@given(files())
@settings(deadline=None, max_examples=150)
def test_what_is_taken_in_is_an_adapter_and_all_else_is_refused(tensors: Tensors) -> None:
    try:
        imported = import_adapter(file(tensors), SHAPES, FLUX)
    except AdapterInvalid:
        return
    found = safetensors.numpy.load(imported.body)
    check_layers(layers_of(found, ["transformer"]), SHAPES, lambda values: float(np.linalg.norm(values)))
    assert imported.rank == max(len(tensor) for name, tensor in found.items() if ".lora_A." in name)
    for place in {name.partition(".lora_")[0] for name in tensors if ".lora_" in name}:
        a, b = (tensors[f"{place}.lora_{half}.weight"].astype(np.float64) for half in ("down", "up"))
        wanted = b @ a * float(tensors.get(f"{place}.alpha", len(a))) / len(a)
        if place == TURNED:
            wanted = np.roll(wanted, WIDTH, axis=0)
        assert np.allclose(np.concatenate([update(found, layer) for layer in PLACES[place]]), wanted)
