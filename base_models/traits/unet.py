"""What the families with a UNet have in common: sizes by levels, the layers of a training. Imports no torch."""

from base_models.traits.family_traits import Configs, SchedulerName, Sizes, TargetsName

SCHEDULERS: tuple[SchedulerName, ...] = ("ddim", "euler", "dpm_solver_multistep")
CLIP_MARKS = 2
"""The begin and end marks of a prompt."""

_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
_CONVOLUTION = ["conv1", "conv2", "conv_shortcut"]
_ROUND_ATTENTION = ["ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
TARGETS: dict[TargetsName, list[str]] = {
    "attention": _ATTENTION,
    "attention_and_convolution": [*_ATTENTION, *_CONVOLUTION],
    "all": [*_ATTENTION, *_CONVOLUTION, *_ROUND_ATTENTION, "conv_in", "conv_out"],
}


def sizes(configs: Configs) -> Sizes:
    """The UNet halves the latents between its levels; sizes must survive that."""
    unet, factor = configs.of("unet"), vae_factor(configs)
    return Sizes(step=factor * 2 ** (len(unet["block_out_channels"]) - 1), default=unet["sample_size"] * factor)


def vae_factor(configs: Configs) -> int:
    """Pixels of a side for each place of the latents."""
    factor: int = 2 ** (len(configs.of("vae")["block_out_channels"]) - 1)
    return factor


def is_v_prediction(configs: Configs) -> bool:
    """Whether the UNet predicts v; else the noise."""
    return bool(configs.of("scheduler").get("prediction_type", "epsilon") == "v_prediction")


def prediction_type(configs: Configs) -> str:
    """ModelSpec's word for what the UNet predicts."""
    return "v" if is_v_prediction(configs) else "epsilon"
