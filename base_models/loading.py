"""Which family a base model is of: the one place that chooses, by the pipeline that its folder names."""

import torch

from base_models.catalog import BaseModelEntry, PipelineName
from base_models.family import BaseModel
from base_models.stable_diffusion import StableDiffusion
from base_models.stable_diffusion_xl import StableDiffusionXL
from base_models.unet_diffusion import UNetDiffusion

_FAMILIES: dict[PipelineName, type[UNetDiffusion]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
}


def load_base_model(entry: BaseModelEntry, device: torch.device, dtype: torch.dtype = torch.float32) -> BaseModel:
    """Load a base model of any family. dtype: of its networks but the autoencoder; training wants float32."""
    return _FAMILIES[entry.pipeline](entry, device, dtype)
