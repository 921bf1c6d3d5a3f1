"""Names of the layers of Z-Image as its published checkpoint and ComfyUI have them. Imports no torch.

By way of diffusers' converter of that checkpoint (loaders/single_file_utils.py). Kohya's musubi-tuner keeps q, k and v
apart as diffusers does; its files are read, since diffusers' names are.
"""

from base_models.traits.family_traits import KohyaPlace
from base_models.traits.place_tables import PlaceTable, fused, look_up, renamed, within

_QKV = {"attention.to_q": 1, "attention.to_k": 1, "attention.to_v": 1}
_SAME = ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3", "adaLN_modulation.0")


def _block(name: str) -> dict[str, KohyaPlace]:
    return {
        **fused(name, _QKV, f"{name}.attention.qkv"),
        **renamed({f"{name}.attention.to_out.0": f"{name}.attention.out"}),
        **within(name, _SAME),
    }


# The published model has patches of two by two in a single frame: `2-1`.
_Z_IMAGE: PlaceTable = {
    **_block("layers.*"),
    **_block("noise_refiner.*"),
    **_block("context_refiner.*"),
    **within("t_embedder", ("mlp.0", "mlp.2")),
    **renamed(
        {
            "cap_embedder.*": "cap_embedder.*",
            "all_x_embedder.2-1": "x_embedder",
            "all_final_layer.2-1.linear": "final_layer.linear",
            "all_final_layer.2-1.adaLN_modulation.1": "final_layer.adaLN_modulation.1",
        }
    ),
}


def z_image_place(layer: str) -> KohyaPlace:
    """Of a layer of the transformer. Raises ValueError."""
    return look_up(_Z_IMAGE, layer)
