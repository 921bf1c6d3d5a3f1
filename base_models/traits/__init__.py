"""What is known of every family without loading it, by the pipeline class that its folders name. Imports no torch."""

from collections.abc import Mapping

from base_models.traits import (
    flux,
    flux_2,
    qwen_image,
    stable_diffusion,
    stable_diffusion_3,
    stable_diffusion_xl,
    z_image,
)
from base_models.traits.family_traits import FamilyTraits

FAMILIES: Mapping[str, FamilyTraits] = {
    family.TRAITS.pipeline: family.TRAITS
    for family in (stable_diffusion, stable_diffusion_xl, stable_diffusion_3, flux, flux_2, z_image, qwen_image)
}
