"""Names of the layers of SDXL's UNet as Stability's own code has them, which are Kohya's names. Imports no torch.

Its one rule: only the shape of the published SDXL is meant, in which a level has two layers, then what resizes it.
After `openaimodel.py` of https://github.com/Stability-AI/generative-models, which counts blocks through all levels.
"""

import re

_LAYERS_PER_LEVEL = 2
_BLOCKS_PER_LEVEL = _LAYERS_PER_LEVEL + 1
# What stands in a block: a resnet, then attention where the level has any, then what resizes.
_RESNET, _ATTENTION, _UPSAMPLER = 0, 1, 2
_WHOLE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_IN_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_PLACE = re.compile(
    r"(?:(?P<side>down|up)_blocks\.(?P<level>\d+)|mid_block)"
    r"\.(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<number>\d+)\.(?P<rest>.+)"
)


def sgm_name(layer: str) -> str:
    """The name of a layer that diffusers calls `layer`, for example `input_blocks.4.1.proj_in`. Raises ValueError."""
    if layer in _WHOLE:
        return _WHOLE[layer]
    place = _PLACE.fullmatch(layer)
    if place is None:
        raise ValueError(f"SDXL's UNet has no layer {layer[:120]!r}")
    kind, number = place["kind"], int(place["number"])
    rest = _IN_RESNET.get(place["rest"], place["rest"])
    if place["side"] is None:
        # A resnet, the attention, a resnet.
        return f"middle_block.{1 if kind == 'attentions' else 2 * number}.{rest}"
    first = _BLOCKS_PER_LEVEL * int(place["level"])
    if kind == "downsamplers":
        return f"input_blocks.{first + _BLOCKS_PER_LEVEL}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{first + _LAYERS_PER_LEVEL}.{_UPSAMPLER}.{rest}"
    inner = _ATTENTION if kind == "attentions" else _RESNET
    # The first of the input blocks is `conv_in`.
    block = f"input_blocks.{first + number + 1}" if place["side"] == "down" else f"output_blocks.{first + number}"
    return f"{block}.{inner}.{rest}"
