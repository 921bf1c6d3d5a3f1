"""The SDXL family (Podell et al. 2023, https://arxiv.org/abs/2307.01952): two text encoders, a UNet that knows sizes.

Its one rule: every picture counts as whole and of its own size (section 2.2: original size = target size, crop 0, 0),
which the latents themselves say; so a prompt is encoded without knowing what size it will be drawn in.

Shapes: B batch, C channels, H/W height and width of latents, T tokens, D features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from base_models.catalog import BaseModelEntry
from base_models.families.unet_diffusion import UNetDiffusion
from base_models.family import Conditioning


class StableDiffusionXL(UNetDiffusion):
    """See BaseModel. The conditioning is `prompt_BTD` of both encoders, and `pooled_BD` of the second."""

    def __init__(self, entry: BaseModelEntry, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(entry, device, dtype)
        # Picture by picture: a batch of 1024 x 1024 pixels in float32 would take more memory than the UNet.
        self.pipeline.vae.enable_slicing()

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        pipeline = self.pipeline
        encoders = ((pipeline.tokenizer, pipeline.text_encoder), (pipeline.tokenizer_2, pipeline.text_encoder_2))
        hidden = []
        for tokenizer, encoder in encoders:
            tokens = tokenizer(list(prompts), padding="max_length", return_tensors="pt").input_ids
            encoded = encoder(tokens.to(self.device), output_hidden_states=True)
            # The last layer but one, without the norm that follows the last.
            hidden.append(encoded.hidden_states[-2])
        said_B = torch.tensor([self._counts(prompt) for prompt in prompts], device=self.device)
        return {
            "prompt_BTD": torch.cat(hidden, dim=-1) * said_B[:, None, None],
            "pooled_BD": encoded.text_embeds * said_B[:, None],
        }

    def _counts(self, prompt: str) -> bool:
        """False for nothing said: it learned that as zeros, and its configuration says so."""
        return bool(prompt) or not self.pipeline.config.force_zeros_for_empty_prompt

    def predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor:
        told = {"text_embeds": conditioning["pooled_BD"], "time_ids": self._sizes(noisy_BCHW)}
        noisy_BCHW = noisy_BCHW.to(self.denoiser.dtype, memory_format=torch.channels_last)
        return self.denoiser(noisy_BCHW, timesteps_B, conditioning["prompt_BTD"], added_cond_kwargs=told).sample

    def _sizes(self, latents_BCHW: Tensor) -> Tensor:
        """[B, 6]: original height and width, top and left of the crop, target height and width, in pixels."""
        batch, _, height, width = latents_BCHW.shape
        size = (height * self.pipeline.vae_scale_factor, width * self.pipeline.vae_scale_factor)
        return torch.tensor((*size, 0, 0, *size), dtype=torch.float32, device=latents_BCHW.device).expand(batch, -1)
