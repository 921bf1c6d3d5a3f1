"""Random transformers written as their authors publish them: one file, the original names, fused layers.

Its one rule: layers are where our own tables put them. What shows that those are right is diffusers, whose conversions
find every weight again or fail.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from base_models.traits.bfl_names import flux2_place, flux_place
from base_models.traits.family_traits import KohyaPlace, same_place
from base_models.traits.sd3_names import sd3_place
from base_models.traits.z_image_names import z_image_place
from tests.original_names import Tensors, autoencoder, clip, weights_of, write_checkpoint

PREFIX = "model.diffusion_model."
_IMAGE, _TEXT = "transformer_blocks.*.attn.norm", "transformer_blocks.*.attn.norm_added"
_SINGLE = "single_transformer_blocks.*.attn.norm"
_BFL_NORMS = {
    f"{_IMAGE}_q.weight": "double_blocks.*.img_attn.norm.query_norm.scale",
    f"{_IMAGE}_k.weight": "double_blocks.*.img_attn.norm.key_norm.scale",
    f"{_TEXT}_q.weight": "double_blocks.*.txt_attn.norm.query_norm.scale",
    f"{_TEXT}_k.weight": "double_blocks.*.txt_attn.norm.key_norm.scale",
    f"{_SINGLE}_q.weight": "single_blocks.*.norm.query_norm.scale",
    f"{_SINGLE}_k.weight": "single_blocks.*.norm.key_norm.scale",
}
_CONTEXT = "joint_blocks.*.context_block"
_SD3 = {
    "pos_embed.pos_embed": "pos_embed",
    **{f"{_IMAGE}_{which}.weight": f"joint_blocks.*.x_block.attn.ln_{which}.weight" for which in "qk"},
    **{f"{_TEXT}_{which}.weight": f"{_CONTEXT}.attn.ln_{which}.weight" for which in "qk"},
    **{
        f"transformer_blocks.*.attn2.norm_{which}.weight": f"joint_blocks.*.x_block.attn2.ln_{which}.weight"
        for which in "qk"
    },
    **{
        f"transformer_blocks.*.norm1_context.linear.{kind}": f"{_CONTEXT}.adaLN_modulation.1.{kind}"
        for kind in ("weight", "bias")
    },
}
_Z_IMAGE_NORMS = {
    f"{block}.*.attention.norm_{which}.weight": f"{block}.*.attention.{which}_norm.weight"
    for block in ("layers", "noise_refiner", "context_refiner")
    for which in "qk"
}


@dataclass(frozen=True)
class Published:
    """How a transformer is published: where its layers are, and by diffusers' names, `*` for the number of a block,
    what else is called otherwise. `prefix` is before every name."""

    place_of: Callable[[str], KohyaPlace]
    others: Mapping[str, str]
    prefix: str = ""

    def names(self, tensors: Tensors) -> Tensors:
        """The weights as they are published."""
        parts: dict[str, dict[int, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            layer, _, kind = name.rpartition(".")
            number = re.search(r"(?<=\.)\d+(?=\.)", name)
            starred = name if number is None else name[: number.start()] + "*" + name[number.end() :]
            if starred in self.others:
                place = KohyaPlace(self.others[starred].replace("*", number.group() if number else ""))
            else:
                place = self._place(layer, kind)
            turned = torch.cat(tensor.chunk(2)[::-1]) if place.turned else tensor
            parts.setdefault(self.prefix + place.name, {})[place.part] = turned
        return {name: torch.cat([found[at] for at in sorted(found)]) for name, found in parts.items()}

    def _place(self, layer: str, kind: str) -> KohyaPlace:
        try:
            place = self.place_of(layer)
        except ValueError:
            # What is no layer is called the same.
            return KohyaPlace(f"{layer}.{kind}".removeprefix("."))
        return KohyaPlace(f"{place.name}.{kind}", place.part, place.widths, place.turned)


FLUX = Published(flux_place, _BFL_NORMS)
FLUX_2 = Published(flux2_place, _BFL_NORMS)
Z_IMAGE = Published(z_image_place, _Z_IMAGE_NORMS)
QWEN_IMAGE = Published(same_place, {})
_STABLE_DIFFUSION_3 = Published(sd3_place, _SD3, PREFIX)


def write_transformer(diffusers_folder: Path, folder: Path, published: Published) -> Path:
    """The transformer in one checkpoint, whose path this is; the other parts' weights in their folders."""
    transformer = shutil.ignore_patterns("transformer")
    shutil.copytree(diffusers_folder, folder, ignore=transformer)
    return write_checkpoint(diffusers_folder, folder, published.names(weights_of(diffusers_folder, "transformer")))


def write_stable_diffusion_3(diffusers_folder: Path, folder: Path) -> Path:
    """As it is published with all its text encoders: one checkpoint, whose path this is. What the first CLIP's
    projection does is not in there: it has to be the identity."""
    transformer = weights_of(diffusers_folder, "transformer")
    blocks = 1 + max(int(name.split(".")[1]) for name in transformer if name.startswith("transformer_blocks."))
    for kind in ("weight", "bias"):
        # The last block's has a shift and a scale alone, which stand the other way round in diffusers.
        last = f"transformer_blocks.{blocks - 1}.norm1_context.linear.{kind}"
        transformer[last] = torch.cat(transformer[last].chunk(2)[::-1])
    first = {
        name: tensor for name, tensor in clip(diffusers_folder, "text_encoder").items() if "projection" not in name
    }
    return write_checkpoint(
        diffusers_folder,
        folder,
        _STABLE_DIFFUSION_3.names(transformer)
        | autoencoder(diffusers_folder)
        | _below("text_encoders.clip_l.transformer.", first)
        | _below("text_encoders.clip_g.transformer.", clip(diffusers_folder, "text_encoder_2"))
        | _below("text_encoders.t5xxl.transformer.", weights_of(diffusers_folder, "text_encoder_3")),
    )


def _below(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}
