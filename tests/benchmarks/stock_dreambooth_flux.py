"""The peer of the speed measurements for FLUX.1: the loop of diffusers' DreamBooth-LoRA example for it.

After examples/dreambooth/train_dreambooth_lora_flux.py of diffusers (commit 0050dea), as its neighbours are after the
other scripts. With bfloat16 all weights are cast to it, the autoencoder's too. A timestep is any of the scheduler's,
uniformly, which is not how we draw them; its noise level is looked up for each row, waiting for the device.

Shapes: B batch, C channels, H/W height and width, T tokens, D features, P patches.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
from diffusers.training_utils import compute_density_for_timestep_sampling
from torch import Tensor

from base_models.pipelines import Pipeline
from tests.benchmarks.stock_dreambooth import Flags, Pictures, StockLoop

_WEIGHTS = {"no": torch.float32, "bf16": torch.bfloat16}
# The script's default of `max_sequence_length`.
_TOKENS = 512


class StockLoopFlux(StockLoop):
    """See StockLoop."""

    network = "transformer"

    @staticmethod
    def loaded_in(mixed_precision: str) -> torch.dtype:
        return _WEIGHTS[mixed_precision]

    def __init__(
        self, pipeline: Pipeline, files: Sequence[Path], prompts: Sequence[str], flags: Flags, *others: Any
    ) -> None:
        self._dtype, self._prompts = _WEIGHTS[flags.mixed_precision], prompts
        super().__init__(pipeline, files, prompts, flags, *others)

    def _scheduler(self, pipeline: Pipeline) -> Any:
        return FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config)

    def _read(self, pictures: Pictures) -> Any:
        return [pictures[row] for row in range(len(pictures))]

    def _latents(self, batch: dict[str, Tensor], sample: bool) -> Tensor:
        posterior = self._vae.encode(batch["pixels_BCHW"].to(self._accelerator.device, self._vae.dtype)).latent_dist
        latents_BCHW = posterior.sample() if sample else posterior.mode()
        config = self._vae.config
        scaled_BCHW: Tensor = (latents_BCHW - config.shift_factor) * config.scaling_factor
        return scaled_BCHW.to(self._dtype)

    def _conditioning(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        pipeline, device = self._pipeline, self._accelerator.device
        prompts = [self._prompts[row] for row in batch["rows_B"].tolist()]
        padded = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        with torch.no_grad():
            clip = pipeline.tokenizer(prompts, max_length=pipeline.tokenizer.model_max_length, **padded).input_ids
            t5 = pipeline.tokenizer_2(prompts, max_length=_TOKENS, **padded).input_ids
            return {
                "pooled_BD": pipeline.text_encoder(clip.to(device)).pooler_output.to(self._dtype),
                "prompt_BTD": pipeline.text_encoder_2(t5.to(device))[0].to(self._dtype),
            }

    def _draw_timesteps(self, latents_BCHW: Tensor) -> Tensor:
        uniform_B = compute_density_for_timestep_sampling("none", len(latents_BCHW), logit_mean=0.0, logit_std=1.0)
        places_B = (uniform_B * self._noise.config.num_train_timesteps).long()
        timesteps_B: Tensor = self._noise.timesteps[places_B].to(latents_BCHW.device)
        for timestep in timesteps_B:
            # The script's look-up, whose result is the timestep over 1000.
            (self._noise.timesteps.to(timestep.device) == timestep).nonzero().item()
        return timesteps_B

    def _add_noise(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        sigmas_B111 = (timesteps_B / 1000).to(latents_BCHW.dtype).view(-1, 1, 1, 1)
        return (1.0 - sigmas_B111) * latents_BCHW + sigmas_B111 * noise_BCHW

    def _target(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        return noise_BCHW - latents_BCHW

    def _predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        count, channels, height, width = noisy_BCHW.shape
        device, factor = noisy_BCHW.device, self._pipeline.vae_scale_factor
        guidance_B = None
        if self._accelerator.unwrap_model(self._network).config.guidance_embeds:
            guidance_B = torch.tensor([self._flags.guidance_scale], device=device).expand(count)
        predicted_BPC = self._network(
            hidden_states=FluxPipeline._pack_latents(noisy_BCHW, count, channels, height, width),
            timestep=timesteps_B / 1000,
            guidance=guidance_B,
            pooled_projections=conditioning["pooled_BD"],
            encoder_hidden_states=conditioning["prompt_BTD"],
            txt_ids=torch.zeros(conditioning["prompt_BTD"].shape[1], 3, device=device, dtype=self._dtype),
            img_ids=FluxPipeline._prepare_latent_image_ids(count, height // 2, width // 2, device, self._dtype),
            return_dict=False,
        )[0]
        predicted_BCHW: Tensor = FluxPipeline._unpack_latents(
            predicted_BPC, height * factor, width * factor, vae_scale_factor=factor
        )
        return predicted_BCHW
