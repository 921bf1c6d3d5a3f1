"""Names of the layers of Stable Diffusion 3 and 3.5 as Stability's own code has them, Kohya's too. Imports no torch.

After https://github.com/Stability-AI/sd3.5 (mmditx.py), by way of diffusers' converter of published checkpoints
(loaders/single_file_utils.py). Its one rule: what that has as one layer is one here.
"""

from base_models.traits.family_traits import KohyaPlace
from base_models.traits.place_tables import PlaceTable, fused, look_up, renamed

_BLOCK = "transformer_blocks.*"
_TEXT_QKV = {"attn.add_q_proj": 1, "attn.add_k_proj": 1, "attn.add_v_proj": 1}


def _qkv(attention: str) -> dict[str, int]:
    return {f"{attention}.to_q": 1, f"{attention}.to_k": 1, f"{attention}.to_v": 1}


# Without `norm1_context.linear`: in the last block, and there only, its halves stand the other way round, and which is
# the last no name says.
_SD3: PlaceTable = {
    **fused(_BLOCK, _qkv("attn"), "joint_blocks.*.x_block.attn.qkv"),
    # In the first blocks of SD 3.5 medium.
    **fused(_BLOCK, _qkv("attn2"), "joint_blocks.*.x_block.attn2.qkv"),
    **fused(_BLOCK, _TEXT_QKV, "joint_blocks.*.context_block.attn.qkv"),
    **renamed(
        {
            f"{_BLOCK}.attn.to_out.0": "joint_blocks.*.x_block.attn.proj",
            f"{_BLOCK}.attn2.to_out.0": "joint_blocks.*.x_block.attn2.proj",
            f"{_BLOCK}.attn.to_add_out": "joint_blocks.*.context_block.attn.proj",
            f"{_BLOCK}.ff.net.0.proj": "joint_blocks.*.x_block.mlp.fc1",
            f"{_BLOCK}.ff.net.2": "joint_blocks.*.x_block.mlp.fc2",
            f"{_BLOCK}.ff_context.net.0.proj": "joint_blocks.*.context_block.mlp.fc1",
            f"{_BLOCK}.ff_context.net.2": "joint_blocks.*.context_block.mlp.fc2",
            f"{_BLOCK}.norm1.linear": "joint_blocks.*.x_block.adaLN_modulation.1",
            "pos_embed.proj": "x_embedder.proj",
            "context_embedder": "context_embedder",
            "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
            "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
            "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
            "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
            "proj_out": "final_layer.linear",
        }
    ),
    # diffusers has the scale first, the published code the shift.
    "norm_out.linear": KohyaPlace("final_layer.adaLN_modulation.1", turned=True),
}


def sd3_place(layer: str) -> KohyaPlace:
    """Of a layer of the transformer. Raises ValueError."""
    return look_up(_SD3, layer)
