"""Random base models written as their authors publish them: all weights in one file, under the original names.

Written from the published code (CompVis latent-diffusion's and Stability's `generative-models` for UNets, OpenCLIP, and
Black Forest Labs' `flux`), for block structures of any length; what tests hold diffusers' conversions against.
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
        for name, tensor in _clip(diffusers_folder, "text_encoder").items()
    }
    return _write(diffusers_folder, folder, _unet(diffusers_folder) | _vae(diffusers_folder) | text)


def write_stable_diffusion_xl(diffusers_folder: Path, folder: Path) -> Path:
    """As SDXL is published."""
    first = {
        f"conditioner.embedders.0.transformer.{name}": tensor
        for name, tensor in _clip(diffusers_folder, "text_encoder").items()
    }
    second = _open_clip(_clip(diffusers_folder, "text_encoder_2"))
    return _write(diffusers_folder, folder, _unet(diffusers_folder) | _vae(diffusers_folder) | first | second)


def write_flux_transformer(diffusers_folder: Path, folder: Path) -> Path:
    """As FLUX.1 is published: the transformer in one checkpoint, the other parts' weights in their folders."""
    tensors = _weights(diffusers_folder, "transformer")
    for part in ("vae", "text_encoder", "text_encoder_2"):
        shutil.copytree(diffusers_folder / part, folder / part)
    return _write(diffusers_folder, folder, _flux(tensors))


def _write(diffusers_folder: Path, folder: Path, tensors: Tensors) -> Path:
    no_weights = shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json")
    shutil.copytree(diffusers_folder, folder, ignore=no_weights, dirs_exist_ok=True)
    path = folder / "published.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def _weights(folder: Path, part: str) -> Tensors:
    return {name: tensor for file in (folder / part).glob("*.safetensors") for name, tensor in load_file(file).items()}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for ours, theirs in names.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    raise ValueError(name)


def _unet(folder: Path) -> Tensors:
    tensors = _weights(folder, "unet")
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


def _vae(folder: Path) -> Tensors:
    found: Tensors = {}
    tensors = _weights(folder, "vae")
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


def _clip(folder: Path, part: str) -> Tensors:
    """By the names of published files, which begin with `text_model.`, but for a projection."""
    return {
        name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}": tensor
        for name, tensor in _weights(folder, part).items()
    }


def _open_clip(tensors: Tensors) -> Tensors:
    prefix = "conditioner.embedders.1.model."
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


def _flux(tensors: Tensors) -> Tensors:
    around = {
        "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
        "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
        "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
        "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
        "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
        "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
        "context_embedder": "txt_in",
        "x_embedder": "img_in",
        "proj_out": "final_layer.linear",
    }
    double = {
        "norm1.linear": "img_mod.lin",
        "norm1_context.linear": "txt_mod.lin",
        "attn.to_out.0": "img_attn.proj",
        "attn.to_add_out": "txt_attn.proj",
        "ff.net.0.proj": "img_mlp.0",
        "ff.net.2": "img_mlp.2",
        "ff_context.net.0.proj": "txt_mlp.0",
        "ff_context.net.2": "txt_mlp.2",
    }
    found: Tensors = {}
    for name, tensor in tensors.items():
        kind = name.rpartition(".")[2]
        if name.startswith("norm_out.linear."):
            # There the shift comes before the scale.
            found[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat(tensor.chunk(2)[::-1])
        elif name.startswith("transformer_blocks."):
            _, number, rest = name.split(".", 2)
            if rest.startswith(tuple(f"{layer}." for layer in double)):
                found[f"double_blocks.{number}.{_renamed(rest, double)}"] = tensor
        elif name.startswith("single_transformer_blocks."):
            _, number, rest = name.split(".", 2)
            layers = {"norm.linear": "modulation.lin", "proj_out": "linear2"}
            if rest.startswith(("norm.linear.", "proj_out.")):
                found[f"single_blocks.{number}.{_renamed(rest, layers)}"] = tensor
        else:
            found[_renamed(name, around)] = tensor
    return found | _flux_attention(tensors)


def _flux_attention(tensors: Tensors) -> Tensors:
    """What is several layers in diffusers and one there: queries, keys and values, and norms of their own names."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        block, _, layer = name.partition(".attn.")
        kind, number = name.rpartition(".")[2], name.split(".")[1]
        if block.startswith("single_"):
            if layer.startswith("to_q."):
                names = [f"{block}.{own}.{kind}" for own in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
                found[f"single_blocks.{number}.linear1.{kind}"] = torch.cat([tensors[own] for own in names])
            elif layer in ("norm_q.weight", "norm_k.weight"):
                which = "query" if "_q" in layer else "key"
                found[f"single_blocks.{number}.norm.{which}_norm.scale"] = tensor
        elif layer.startswith(("to_q.", "add_q_proj.")):
            side = "img" if layer.startswith("to_q.") else "txt"
            own = name.rpartition(".")[0]
            three = [tensors[f"{own.replace('_q', which)}.{kind}"] for which in ("_q", "_k", "_v")]
            found[f"double_blocks.{number}.{side}_attn.qkv.{kind}"] = torch.cat(three)
        elif layer.startswith(("norm_q.", "norm_k.", "norm_added_")):
            side, which = "txt" if "added" in layer else "img", "query" if "_q" in layer else "key"
            found[f"double_blocks.{number}.{side}_attn.norm.{which}_norm.scale"] = tensor
    return found
