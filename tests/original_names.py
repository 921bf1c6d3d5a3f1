"""Random base models written as their authors publish them: all weights in one file, under the original names.

Written from the published code (CompVis latent-diffusion's and Stability's `generative-models` for UNets, OpenCLIP),
for block structures of any length; what tests hold diffusers' conversions against.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_AROUND_UNET = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def write_stable_diffusion(diffusers_folder: Path, folder: Path) -> Path:
    """The same model as SD 1.x is published: configurations in the folder, and one checkpoint; its path."""
    text = {
        f"cond_stage_model.transformer.{name}": tensor
        for name, tensor in clip(diffusers_folder, "text_encoder").items()
    }
    return write_checkpoint(diffusers_folder, folder, _unet(diffusers_folder) | autoencoder(diffusers_folder) | text)


def write_stable_diffusion_2(diffusers_folder: Path, folder: Path) -> Path:
    """As SD 2.x is published: OpenCLIP's text encoder whole, of whose 24 layers diffusers has all but the last."""
    tensors = clip(diffusers_folder, "text_encoder")
    layer = "text_model.encoder.layers."
    unused = {name.replace(f"{layer}0.", f"{layer}23."): tensor + 1 for name, tensor in tensors.items()}
    size = tensors["text_model.final_layer_norm.weight"].shape[0]
    projection = {"text_projection.weight": torch.ones(size, size)}
    text = _open_clip(unused | tensors | projection, "cond_stage_model.model.")
    return write_checkpoint(diffusers_folder, folder, _unet(diffusers_folder) | autoencoder(diffusers_folder) | text)


def write_stable_diffusion_xl(diffusers_folder: Path, folder: Path) -> Path:
    """As SDXL is published."""
    first = {
        f"conditioner.embedders.0.transformer.{name}": tensor
        for name, tensor in clip(diffusers_folder, "text_encoder").items()
    }
    second = _open_clip(clip(diffusers_folder, "text_encoder_2"), "conditioner.embedders.1.model.")
    return write_checkpoint(
        diffusers_folder, folder, _unet(diffusers_folder) | autoencoder(diffusers_folder) | first | second
    )


def write_checkpoint(diffusers_folder: Path, folder: Path, tensors: Tensors) -> Path:
    """What the folder has without its weights, and these in one file; its path."""
    no_weights = shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json")
    shutil.copytree(diffusers_folder, folder, ignore=no_weights, dirs_exist_ok=True)
    path = folder / "published.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def weights_of(folder: Path, part: str) -> Tensors:
    """By diffusers' names."""
    return {name: tensor for file in (folder / part).glob("*.safetensors") for name, tensor in load_file(file).items()}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for ours, theirs in names.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    raise ValueError(name)


def _unet(folder: Path) -> Tensors:
    tensors = weights_of(folder, "unet")
    blocks = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("down_blocks."))
    resnets = 1 + max(int(name.split(".")[3]) for name in tensors if name.startswith("down_blocks.0.resnets."))
    places = dict(_AROUND_UNET)
    for block in range(blocks):
        for at in range(resnets):
            entry = (resnets + 1) * block + at + 1
            places[f"down_blocks.{block}.resnets.{at}"] = f"input_blocks.{entry}.0"
            places[f"down_blocks.{block}.attentions.{at}"] = f"input_blocks.{entry}.1"
        places[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{(resnets + 1) * (block + 1)}.0.op"
        has_attention = any(name.startswith(f"up_blocks.{block}.attentions.") for name in tensors)
        for at in range(resnets + 1):
            entry = (resnets + 1) * block + at
            places[f"up_blocks.{block}.resnets.{at}"] = f"output_blocks.{entry}.0"
            places[f"up_blocks.{block}.attentions.{at}"] = f"output_blocks.{entry}.1"
        last = (resnets + 1) * block + resnets
        places[f"up_blocks.{block}.upsamplers.0.conv"] = f"output_blocks.{last}.{2 if has_attention else 1}.conv"
    return {
        f"model.diffusion_model.{_in_resnet(name, _renamed(name, places))}": tensor for name, tensor in tensors.items()
    }


def _in_resnet(name: str, renamed: str) -> str:
    if ".resnets." not in name:
        return renamed
    block, layer, kind = renamed.rsplit(".", 2)
    return f"{block}.{_RESNET[layer]}.{kind}"


def autoencoder(folder: Path) -> Tensors:
    """That of a latent diffusion model, wherever it has come since."""
    found: Tensors = {}
    tensors = weights_of(folder, "vae")
    blocks = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("decoder.up_blocks."))
    for name, tensor in tensors.items():
        steps = name.split(".")
        if "down_blocks" in name:
            steps = [steps[0], "down", steps[2], *_vae_layer(steps[3:], "downsample")]
        elif "up_blocks" in name:
            steps = [steps[0], "up", str(blocks - 1 - int(steps[2])), *_vae_layer(steps[3:], "upsample")]
        elif "mid_block.resnets" in name:
            steps = [steps[0], "mid", f"block_{int(steps[3]) + 1}", *_vae_shortcut(steps[4:])]
        elif "mid_block.attentions" in name:
            layer, kind = ".".join(steps[4:-1]), steps[-1]
            steps = [steps[0], "mid", "attn_1", _VAE_ATTENTION[layer], kind]
            if layer != "group_norm" and kind == "weight":
                # There attention is a convolution of one pixel.
                tensor = tensor[:, :, None, None]
        found["first_stage_model." + ".".join(steps).replace("conv_norm_out", "norm_out")] = tensor
    return found


def _vae_layer(steps: list[str], resampling: str) -> list[str]:
    if steps[0] == "resnets":
        return ["block", steps[1], *_vae_shortcut(steps[2:])]
    return [resampling, *steps[2:]]


def _vae_shortcut(steps: list[str]) -> list[str]:
    return ["nin_shortcut" if step == "conv_shortcut" else step for step in steps]


def clip(folder: Path, part: str) -> Tensors:
    """By the names of published files, which begin with `text_model.`, but for a projection."""
    return {
        name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}": tensor
        for name, tensor in weights_of(folder, part).items()
    }


def _open_clip(tensors: Tensors, prefix: str) -> Tensors:
    found = {
        f"{prefix}token_embedding.weight": tensors["text_model.embeddings.token_embedding.weight"],
        f"{prefix}positional_embedding": tensors["text_model.embeddings.position_embedding.weight"],
        f"{prefix}ln_final.weight": tensors["text_model.final_layer_norm.weight"],
        f"{prefix}ln_final.bias": tensors["text_model.final_layer_norm.bias"],
        f"{prefix}text_projection": tensors["text_projection.weight"].T,
    }
    for name, tensor in tensors.items():
        if not name.startswith("text_model.encoder.layers."):
            continue
        number, _, rest = name.removeprefix("text_model.encoder.layers.").partition(".")
        block = f"{prefix}transformer.resblocks.{number}."
        if rest.startswith("self_attn.q_proj."):
            kind = rest.rpartition(".")[2]
            three = [tensors[name.replace("q_proj", which)] for which in ("q_proj", "k_proj", "v_proj")]
            found[f"{block}attn.in_proj_{kind}"] = torch.cat(three)
        elif not rest.startswith(("self_attn.k_proj.", "self_attn.v_proj.")):
            found[block + _renamed(rest, _OPEN_CLIP)] = tensor
    return found
