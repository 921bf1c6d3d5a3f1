"""Which family a base model is of: the one place that chooses, by the pipeline that its folder names."""

import torch

from base_models.catalog import BaseModelEntry
from base_models.families.flux import Flux
from base_models.families.flux_2 import Flux2Klein
from base_models.families.pipeline_model import PipelineModel
from base_models.families.qwen_image import QwenImage
from base_models.families.stable_diffusion import StableDiffusion
from base_models.families.stable_diffusion_3 import StableDiffusion3
from base_models.families.stable_diffusion_xl import StableDiffusionXL
from base_models.families.z_image import ZImage
from base_models.family import BaseModel
from base_models.weights.placement import PlacementName

_FAMILIES: dict[str, type[PipelineModel]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "FluxPipeline": Flux,
    "Flux2KleinPipeline": Flux2Klein,
    "ZImagePipeline": ZImage,
    "QwenImagePipeline": QwenImage,
}


def load_base_model(
    entry: BaseModelEntry,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    placement: PlacementName | None = None,
) -> BaseModel:
    """Load a base model of any family.

    dtype: of its networks but the autoencoder. placement: None: all on the device.
    """
    family = _FAMILIES[entry.pipeline]
    if placement is None:
        return family(entry, device, dtype)
    model = family(entry, torch.device("cpu"), dtype)
    model.place(device, placement)
    return model
