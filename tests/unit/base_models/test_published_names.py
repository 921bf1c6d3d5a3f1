"""Layers under the names of the code that a model was published with, held against diffusers, which converts from them.

Every weight here is one column, as tall as the real one, of numbers that occur nowhere else.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import diffusers
import pytest
import torch
from diffusers import loaders
from diffusers.loaders import single_file_utils as converters

from base_models.adapters.adapter_export import StoredTensor, renamed
from base_models.traits import FAMILIES
from base_models.traits.bfl_names import flux2_place, flux_place
from base_models.traits.family_traits import KohyaPlace, same_place
from base_models.traits.sd3_names import sd3_place
from base_models.traits.z_image_names import z_image_place

Tensors = dict[str, torch.Tensor]
PlaceOf = Callable[[str], KohyaPlace]
RANK = 2

MODELS: dict[str, tuple[str, dict[str, Any], PlaceOf]] = {
    "flux": ("FluxTransformer2DModel", {"num_layers": 1, "num_single_layers": 1, "guidance_embeds": True}, flux_place),
    "flux2": ("Flux2Transformer2DModel", {"num_layers": 1, "num_single_layers": 1}, flux2_place),
    "sd3": (
        "SD3Transformer2DModel",
        {"num_layers": 2, "num_attention_heads": 24, "caption_projection_dim": 1536, "dual_attention_layers": (0,)},
        sd3_place,
    ),
    "z_image": ("ZImageTransformer2DModel", {"n_layers": 1, "n_refiner_layers": 1}, z_image_place),
}
CONVERTERS = {
    "flux": converters.convert_flux_transformer_checkpoint_to_diffusers,
    "flux2": converters.convert_flux2_transformer_checkpoint_to_diffusers,
    "sd3": converters.convert_sd3_transformer_checkpoint_to_diffusers,
    "z_image": converters.convert_z_image_transformer_checkpoint_to_diffusers,
}
# In the last block, and there only, its halves change places.
NAMELESS = {"sd3": {f"transformer_blocks.{block}.norm1_context.linear" for block in (0, 1)}}


class Checkpoint(dict[str, torch.Tensor]):
    """A published checkpoint of which only the layers are of interest: whatever else is asked for is zeros."""

    def pop(self, key: str, *default: Any) -> torch.Tensor:
        return super().pop(key, torch.zeros(21504))


def layers_of(model: str) -> dict[str, tuple[int, int]]:
    """Outputs and inputs by diffusers' names."""
    name, config, _ = MODELS[model]
    with torch.device("meta"):
        modules = getattr(diffusers, name)(**config).named_modules()
        return {
            layer: (module.weight.shape[0], module.weight.shape[1])
            for layer, module in modules
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
        }


def published(weights: Tensors, place_of: PlaceOf) -> Checkpoint:
    """The weights as they were published, by our tables."""
    parts: dict[str, dict[int, torch.Tensor]] = {}
    for layer, weight in weights.items():
        place = place_of(layer)
        found = parts.setdefault(f"{place.name}.weight", {})
        assert place.part not in found
        found[place.part] = weight.roll(len(weight) // 2, 0) if place.turned else weight
    return Checkpoint({name: torch.cat([found[part] for part in sorted(found)]) for name, found in parts.items()})


@pytest.mark.parametrize("model", MODELS)
def test_diffusers_finds_every_layer_where_our_tables_put_it(model: str) -> None:
    _, _, place_of = MODELS[model]
    numbers = count()
    weights, nameless = Tensors(), set()
    for layer, (outputs, inputs) in layers_of(model).items():
        try:
            place = place_of(layer)
        except ValueError:
            nameless.add(layer)
            continue
        weights[layer] = torch.tensor([[float(next(numbers))] for _ in range(outputs)])
        if len(place.widths) > 1:
            assert place.widths[place.part] * inputs == outputs
    found = CONVERTERS[model](published(weights, place_of))
    assert nameless == NAMELESS.get(model, set())
    assert next(numbers) < 2**24
    for layer, weight in weights.items():
        assert torch.equal(found[f"{layer}.weight"], weight), layer


@pytest.mark.parametrize(
    "layer", ["", "other", "transformer_blocks.0", "transformer_blocks.x.attn.to_q", "x_embedder.0"]
)
@pytest.mark.parametrize("place_of", [flux_place, flux2_place, sd3_place, z_image_place])
def test_what_the_published_model_has_not_is_refused(place_of: PlaceOf, layer: str) -> None:
    with pytest.raises(ValueError, match="the published model has no layer"):
        place_of(layer)


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
FLUX_LAYERS = (*(f"attn.{name}" for name in ATTENTION), "net.0.proj", "net.2", "proj_mlp", ".proj_out")
FLUX2_LAYERS = (*(f"attn.{name}" for name in ATTENTION), "linear_in", "linear_out", "to_qkv_mlp_proj", "attn.to_out")
Z_IMAGE_LAYERS = (*(f"attention.{name}" for name in ATTENTION[:4]), "w1", "w2", "w3")
QWEN: dict[str, tuple[int, int]] = {
    f"transformer_blocks.0.{layer}": (3072, 3072)
    for layer in (*(f"attn.{name}" for name in ATTENTION), "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.2")
}


def adapter(layers: dict[str, tuple[int, int]]) -> Tensors:
    dice, tensors = torch.Generator().manual_seed(0), Tensors()
    for layer, (outputs, inputs) in layers.items():
        tensors[f"transformer.{layer}.lora_A.weight"] = torch.randn(RANK, inputs, generator=dice)
        tensors[f"transformer.{layer}.lora_B.weight"] = torch.randn(outputs, RANK, generator=dice)
    return tensors


def in_kohyas_names(tensors: Tensors, pipeline: str) -> Tensors:
    stored = {
        name: StoredTensor("F32", tuple(tensor.shape), tensor.numpy().tobytes()) for name, tensor in tensors.items()
    }
    return {
        name: torch.frombuffer(bytearray(tensor.data), dtype=torch.float32).reshape(tensor.shape)
        for name, tensor in renamed(stored, "kohya", pipeline).items()
    }


def updated(tensors: Tensors, layer: str) -> torch.Tensor:
    """What a layer's update makes of one vector."""
    a, b = (tensors[f"transformer.{layer}.lora_{half}.weight"] for half in "AB")
    return b @ (a @ torch.linspace(-1, 1, a.shape[1]))


@pytest.mark.parametrize("is_partial", [False, True])
@pytest.mark.parametrize(
    ("loader", "layers", "place_of"),
    [
        (loaders.FluxLoraLoaderMixin, lambda: targeted("flux", FLUX_LAYERS), flux_place),
        (loaders.Flux2LoraLoaderMixin, lambda: targeted("flux2", FLUX2_LAYERS), flux2_place),
        (loaders.ZImageLoraLoaderMixin, lambda: targeted("z_image", Z_IMAGE_LAYERS), z_image_place),
        (loaders.QwenImageLoraLoaderMixin, lambda: QWEN, same_place),
    ],
    ids=["flux", "flux2", "z_image", "qwen"],
)
def test_diffusers_reads_an_adapter_in_kohyas_names(
    loader: Any, layers: Any, place_of: PlaceOf, is_partial: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At full size, since diffusers knows FLUX.1's by heart. Partial: of fused layers, only their last part."""
    # So much of a family as this takes; not all of these are served yet.
    monkeypatch.setitem(FAMILIES, "Family", replace(FAMILIES["FluxPipeline"], kohya_place=place_of))  # type: ignore[misc]
    wanted = adapter({layer: shape for layer, shape in layers().items() if not is_partial or _is_last(place_of(layer))})
    found = loader.lora_state_dict(in_kohyas_names(wanted, "Family"))
    names = {name.removeprefix("transformer.").rpartition(".lora_")[0] for name in wanted}
    assert names
    for layer in names:
        assert torch.allclose(updated(found, layer), updated(wanted, layer), atol=1e-4), layer
    # Parts that the adapter does not change come as zeros.
    for layer in {name.removeprefix("transformer.").rpartition(".lora_")[0] for name in found} - names:
        assert not updated(found, layer).any(), layer


def test_diffusers_leaves_out_flux_1s_last_layer_in_kohyas_names() -> None:
    """It forgets the prefix by which it finds layers; docs/export.md says so."""
    wanted = adapter({"proj_out": (64, 3072)})
    found = loaders.FluxLoraLoaderMixin.lora_state_dict(in_kohyas_names(wanted, "FluxPipeline"))
    assert set(found) == {"proj_out.lora_A.weight", "proj_out.lora_B.weight"}


def targeted(model: str, endings: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    return {layer: shape for layer, shape in layers_of(model).items() if layer.endswith(endings)}


def _is_last(place: KohyaPlace) -> bool:
    return place.part == len(place.widths) - 1
