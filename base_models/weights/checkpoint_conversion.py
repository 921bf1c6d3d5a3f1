"""`python -m base_models.weights.checkpoint_conversion CHECKPOINT FOLDER PART…`: parts out of one checkpoint.

FOLDER is a diffusers folder with configurations; each PART of it gets its weights, by the names that diffusers' own
single-file loader gives them, in the numbers that the checkpoint has. What is wrong is said in one line on standard
output, with exit status 1. With `--end-with-input` it ends when its standard input does: who asked for it has died.

Its one rule: each part gets all tensors that its class has, in their shapes, and no other; nothing is guessed from the
checkpoint, and no pickle is read.
"""

import argparse
import os
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from diffusers.loaders.single_file_utils import (
    create_diffusers_clip_model_from_ldm,
    create_diffusers_t5_model_from_checkpoint,
    is_clip_model_in_single_file,
    is_t5_in_single_file,
)
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from base_models.catalog import CatalogError, describe
from base_models.weights.weight_files import parts

Tensors = dict[str, torch.Tensor]

# What programs that quantise add to a weight; without it the weight's numbers mean something else.
_QUANTISED = ("scale_weight", "weight_scale", "scale_input", "input_scale", "scaled_fp8", "comfy_quant", "absmax")
# Before the names of a denoiser, where other parts lie or might lie beside it.
_DENOISER = "model.diffusion_model."
_TEXT_ENCODERS = ("cond_stage_model.", "conditioner.", "text_encoders.")
_SHOWN = 3


class NotConvertible(Exception):
    """A checkpoint that is not that of this base model; the text says why."""


def convert(checkpoint: Path, folder: Path, wanted: list[str]) -> None:
    """Write the weights of each wanted part. Raises NotConvertible, CatalogError, OSError.

    The checkpoint is mapped into memory, so of a part that diffusers converts only what it computes anew takes any.
    """
    tensors = load_file(checkpoint)
    quantised = sorted(name for name in tensors if name.endswith(_QUANTISED))
    if quantised:
        raise NotConvertible(f"it is quantised ({quantised[0]}); allowed are float32, float16, bfloat16 and plain fp8")
    classes = parts(describe(checkpoint.stem, folder))
    if unknown := [part for part in wanted if part not in classes]:
        raise NotConvertible(f"{', '.join(unknown)}: no such part; there are {', '.join(classes)}")
    for part in wanted:
        library, class_name = classes[part]
        target = folder / part
        try:
            if library == "diffusers":
                _write(_converted(class_name, tensors, folder, part), target / "diffusion_pytorch_model.safetensors")
            elif library == "transformers":
                _write(_text_encoder(class_name, tensors, folder, part), target / "model.safetensors")
            else:
                raise NotConvertible(f"its class is {library}.{class_name}; none of {library} can be converted")
        except NotConvertible as error:
            raise NotConvertible(f"{part}: {error}") from error
        except (KeyError, IndexError, ValueError, RuntimeError, AttributeError, TypeError) as error:
            # What diffusers' conversions stumble over where names or shapes are not those that they expect.
            raise NotConvertible(f"{part}: holds no {class_name}: {type(error).__name__}: {error}") from error


def _converted(class_name: str, tensors: Tensors, folder: Path, part: str) -> Tensors:
    loading = SINGLE_FILE_LOADABLE_CLASSES.get(class_name)
    if loading is None:
        raise NotConvertible(f"no conversion is known for a {class_name}; put its weights into {part}/")
    part_class = getattr(diffusers, class_name)
    config = part_class.load_config(folder, subfolder=part, local_files_only=True)
    with torch.device("meta"):
        blank: Tensors = part_class.from_config(config).state_dict()
    if class_name.endswith("Transformer2DModel"):
        # Not all of their conversions know the prefix, nor leave other parts aside. That of UNets wants it.
        inside = {name.removeprefix(_DENOISER): tensors[name] for name in tensors if name.startswith(_DENOISER)}
        tensors = inside or tensors
    # Under diffusers' own names there is nothing to convert, and nothing else may lie beside.
    found = tensors if tensors.keys() == blank.keys() else _renamed(loading["checkpoint_mapping_fn"], tensors, config)
    _check(found, blank)
    return found


def _renamed(conversion: Any, tensors: Tensors, config: dict[str, Any]) -> Tensors:
    # Conversions take out what they have used.
    found: Tensors = conversion(checkpoint=dict(tensors), config=dict(config))
    return found


def _text_encoder(class_name: str, tensors: Tensors, folder: Path, part: str) -> Tensors:
    part_class = getattr(transformers, class_name)
    if is_clip_model_in_single_file(part_class, tensors):
        convert_encoder = create_diffusers_clip_model_from_ldm
    elif class_name == "T5EncoderModel" and is_t5_in_single_file(tensors):
        convert_encoder = create_diffusers_t5_model_from_checkpoint
    else:
        raise NotConvertible(f"the checkpoint holds no {class_name}; put its weights into {part}/")
    encoder = convert_encoder(
        part_class,
        checkpoint=dict(tensors),
        config=str(folder),
        subfolder=part,
        torch_dtype=_dtype_of_text_encoders(tensors),
        local_files_only=True,
    )
    # The conversion leaves the second name of a weight without it.
    encoder.tie_weights()
    lacking = [name for name, parameter in encoder.named_parameters() if parameter.is_meta]
    if lacking:
        raise NotConvertible(_listed("lacks", lacking))
    # Each tied weight once, as its own class reads it again.
    shared = set(encoder.all_tied_weights_keys)
    return {name: tensor for name, tensor in encoder.state_dict().items() if name not in shared}


def _dtype_of_text_encoders(tensors: Tensors) -> torch.dtype | None:
    """What most of their numbers are held in; None where the checkpoint has none."""
    counts: Counter[torch.dtype] = Counter()
    for name, tensor in tensors.items():
        if name.startswith(_TEXT_ENCODERS) and tensor.is_floating_point():
            counts[tensor.dtype] += tensor.numel()
    return counts.most_common(1)[0][0] if counts else None


def _check(found: Tensors, blank: Tensors) -> None:
    if lacking := sorted(blank.keys() - found.keys()):
        raise NotConvertible(_listed("lacks", lacking))
    if surplus := sorted(found.keys() - blank.keys()):
        raise NotConvertible(_listed("has what its config.json knows nothing of:", surplus))
    for name, tensor in found.items():
        if tensor.shape != blank[name].shape or not tensor.is_floating_point():
            raise NotConvertible(
                f"{name} is {tensor.dtype} {list(tensor.shape)}; its config.json wants floats of "
                f"{list(blank[name].shape)}"
            )


def _listed(what: str, names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"the checkpoint {what} {', '.join(names[:_SHOWN])}{more}"


def _write(tensors: Tensors, path: Path) -> None:
    unfinished = path.with_name(f".{path.name}.part")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished, {"format": "pt"})
    unfinished.rename(path)


def _end_with_parent() -> None:
    # Not sys.stdin, whose lock the end of this process would wait for.
    os.read(0, 1)
    os._exit(1)


def main() -> None:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m base_models.weights.checkpoint_conversion", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("part", nargs="+")
    parser.add_argument("--end-with-input", action="store_true")
    arguments = parser.parse_args()
    if arguments.end_with_input:
        threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        convert(arguments.checkpoint, arguments.folder, arguments.part)
    except (NotConvertible, CatalogError, OSError) as error:
        print(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
