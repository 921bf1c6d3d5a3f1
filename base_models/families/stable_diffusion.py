"""The Stable Diffusion family (1.x, 2.x and the bundled toon-64): CLIP text encoder, UNet, epsilon or v prediction.

Shapes: B batch, C channels, H/W height and width, T tokens, D features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from base_models.families.unet_diffusion import UNetDiffusion
from base_models.family import Conditioning


class StableDiffusion(UNetDiffusion):
    """See BaseModel."""

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        tokens = self.pipeline.tokenizer(list(prompts), padding="max_length", return_tensors="pt").input_ids
        return {"prompt_BTD": self.pipeline.text_encoder(tokens.to(self.device))[0]}

    def predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor:
        noisy_BCHW = noisy_BCHW.to(self.denoiser.dtype, memory_format=torch.channels_last)
        return self.denoiser(noisy_BCHW, timesteps_B, conditioning["prompt_BTD"]).sample
