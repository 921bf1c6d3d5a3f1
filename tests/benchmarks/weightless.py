"""Base models of any size that hold no memory: from the configs of a folder, without its weights."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any
from unittest.mock import patch

import diffusers
import torch
from diffusers import ModelMixin
from diffusers.utils import logging

from base_models.catalog import BaseModelEntry
from base_models.families import pipeline_model
from base_models.family import BaseModel
from base_models.loading import load_base_model


def weightless(entry: BaseModelEntry, dtype: torch.dtype) -> BaseModel:
    """The family's own class round networks on the meta device. dtype: of all but the autoencoder."""
    with patch.object(pipeline_model, "load_pipeline", _from_configs):
        return load_base_model(entry, torch.device("meta"), dtype)


def _from_configs(entry: BaseModelEntry, device: torch.device, dtype: Mapping[str, torch.dtype]) -> Any:
    logging.set_verbosity_error()
    pipeline_class: Any = getattr(diffusers, entry.pipeline)
    parts: dict[str, Any] = {}
    for name, named in pipeline_class.load_config(entry.folder).items():
        if not isinstance(named, list | tuple) or name in entry.traits.without:
            continue
        library, class_name = named
        if library is None:
            parts[name] = None
            continue
        part: Any = getattr(import_module(library), class_name)
        folder = entry.folder / name
        if not issubclass(part, torch.nn.Module):
            parts[name] = part.from_pretrained(folder)
            continue
        with device:
            if issubclass(part, ModelMixin):
                module = part.from_config(part.load_config(folder))
            else:
                module = part(part.config_class.from_pretrained(folder))
        parts[name] = module.to(dtype.get(name, dtype["default"])).requires_grad_(False).eval()
    return pipeline_class(**parts, **entry.traits.without)
