"""What the families with a transformer have in common, as far as it is known without loading one. Imports no torch."""

from base_models.traits.family_traits import Configs, SchedulerName, Sizes
from base_models.traits.unet import vae_factor

SCHEDULERS: tuple[SchedulerName, ...] = ("euler",)
SIDE = 1024
"""Pixels of a side of the pictures that all of them were made for."""


def sizes(configs: Configs) -> Sizes:
    """Patches are two by two latents."""
    return Sizes(step=2 * vae_factor(configs), default=SIDE)
