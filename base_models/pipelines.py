"""The plain diffusers pipelines of the families: how a folder is loaded, and what adapters may change of it.

Its one rule: what is loaded is frozen, float weights from safetensors files; no pickle is read, nothing is fetched.
"""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from diffusers import ConfigMixin
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from base_models.catalog import BaseModelEntry
from base_models.traits import FAMILIES
from base_models.traits.family_traits import Configs

Pipeline = Any
"""A diffusers pipeline, whose parts are set at run time, out of the sight of type checkers."""


def load_pipeline(
    entry: BaseModelEntry, device: torch.device, dtype: torch.dtype | Mapping[str, torch.dtype]
) -> Pipeline:
    """The plain diffusers pipeline, frozen, on the device.

    dtype: of its weights, or of each part's by its name, `default` of the rest's. Where the files hold that dtype,
    their bytes go to the device as they are; on a CPU they stay in the files, mapped into memory.
    """
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    verbosity = diffusers_logging.get_verbosity()
    # An AutoencoderTiny in the place of an AutoencoderKL draws a notice at every load; it is meant to be there.
    diffusers_logging.set_verbosity_error()
    pipeline_class = getattr(diffusers, entry.pipeline)
    # What a folder says it lacks has to be said again: diffusers takes it for forgotten.
    without = {**dict.fromkeys(Configs(entry.folder).absent()), **entry.traits.without}
    try:
        pipeline = pipeline_class.from_pretrained(
            entry.folder,
            dtype=dtype if isinstance(dtype, torch.dtype) else dict(dtype),
            use_safetensors=True,
            local_files_only=True,
            # Tensor by tensor from the file to the device: without it, part by part through host memory.
            device_map=None if device.type == "cpu" else device.type,
            **without,
        )
    finally:
        diffusers_logging.set_verbosity(verbosity)
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    return pipeline


def adaptable_modules(pipeline: Pipeline) -> dict[str, torch.nn.Module]:
    """See BaseModel.adaptable. The prefixes are those of diffusers' `load_lora_weights`."""
    return {name: pipeline.components[name] for name in FAMILIES[type(pipeline).__name__].adaptable}


def without_weights(module: torch.nn.Module) -> torch.nn.Module:
    """A module of the same architecture that takes no memory: what adapter files can be checked against."""
    with torch.device("meta"):
        if isinstance(module, ConfigMixin):
            blank: torch.nn.Module = type(module).from_config(module.config)
            return blank
        return type(module)(module.config)
