"""Names of the layers of FLUX.1 and FLUX.2 as Black Forest Labs' code has them, which are Kohya's. Imports no torch.

After https://github.com/black-forest-labs/flux and /flux2 (model.py), by way of diffusers' converters of published
checkpoints (loaders/single_file_utils.py). Its one rule: what those have as one layer is one here.
"""

from base_models.traits.family_traits import KohyaPlace
from base_models.traits.place_tables import PlaceTable, fused, look_up, renamed

_DOUBLE, _SINGLE = "transformer_blocks.*", "single_transformer_blocks.*"
_IMAGE_QKV = {"attn.to_q": 1, "attn.to_k": 1, "attn.to_v": 1}
_TEXT_QKV = {"attn.add_q_proj": 1, "attn.add_k_proj": 1, "attn.add_v_proj": 1}

_BOTH: PlaceTable = {
    **fused(_DOUBLE, _IMAGE_QKV, "double_blocks.*.img_attn.qkv"),
    **fused(_DOUBLE, _TEXT_QKV, "double_blocks.*.txt_attn.qkv"),
    **renamed(
        {
            f"{_DOUBLE}.attn.to_out.0": "double_blocks.*.img_attn.proj",
            f"{_DOUBLE}.attn.to_add_out": "double_blocks.*.txt_attn.proj",
            "x_embedder": "img_in",
            "context_embedder": "txt_in",
            "proj_out": "final_layer.linear",
        }
    ),
    # diffusers has the scale first, the published code the shift.
    "norm_out.linear": KohyaPlace("final_layer.adaLN_modulation.1", turned=True),
}


def _embedders(parent: str, names: dict[str, str]) -> dict[str, KohyaPlace]:
    """Two linear layers each."""
    return renamed(
        {
            f"{parent}.{embedder}.linear_{number}": f"{name}.{layer}"
            for embedder, name in names.items()
            for number, layer in ((1, "in_layer"), (2, "out_layer"))
        }
    )


_FLUX: PlaceTable = {
    **_BOTH,
    **fused(_SINGLE, _IMAGE_QKV | {"proj_mlp": 4}, "single_blocks.*.linear1"),
    **renamed(
        {
            f"{_SINGLE}.proj_out": "single_blocks.*.linear2",
            f"{_SINGLE}.norm.linear": "single_blocks.*.modulation.lin",
            f"{_DOUBLE}.norm1.linear": "double_blocks.*.img_mod.lin",
            f"{_DOUBLE}.norm1_context.linear": "double_blocks.*.txt_mod.lin",
            f"{_DOUBLE}.ff.net.0.proj": "double_blocks.*.img_mlp.0",
            f"{_DOUBLE}.ff.net.2": "double_blocks.*.img_mlp.2",
            f"{_DOUBLE}.ff_context.net.0.proj": "double_blocks.*.txt_mlp.0",
            f"{_DOUBLE}.ff_context.net.2": "double_blocks.*.txt_mlp.2",
        }
    ),
    **_embedders(
        "time_text_embed",
        {"timestep_embedder": "time_in", "guidance_embedder": "guidance_in", "text_embedder": "vector_in"},
    ),
}

_FLUX2: PlaceTable = {
    **_BOTH,
    **renamed(
        {
            f"{_SINGLE}.attn.to_qkv_mlp_proj": "single_blocks.*.linear1",
            f"{_SINGLE}.attn.to_out": "single_blocks.*.linear2",
            f"{_DOUBLE}.ff.linear_in": "double_blocks.*.img_mlp.0",
            f"{_DOUBLE}.ff.linear_out": "double_blocks.*.img_mlp.2",
            f"{_DOUBLE}.ff_context.linear_in": "double_blocks.*.txt_mlp.0",
            f"{_DOUBLE}.ff_context.linear_out": "double_blocks.*.txt_mlp.2",
            "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
            "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
            "single_stream_modulation.linear": "single_stream_modulation.lin",
        }
    ),
    **_embedders("time_guidance_embed", {"timestep_embedder": "time_in", "guidance_embedder": "guidance_in"}),
}


def flux_place(layer: str) -> KohyaPlace:
    """Of a layer of FLUX.1's transformer. Raises ValueError."""
    return look_up(_FLUX, layer)


def flux2_place(layer: str) -> KohyaPlace:
    """Of a layer of FLUX.2's transformer, dev or klein. Raises ValueError."""
    return look_up(_FLUX2, layer)
