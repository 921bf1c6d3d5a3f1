"""Qwen-Image: Qwen2.5-VL reads prompts, the autoencoder of films sees pictures as films of one frame.

Its one rule: that autoencoder remembers the frame before in itself, so it does one thing at a time.

Shapes: B batch, C channels, H/W height and width of latents, F frames (one), P patches, T tokens, D features.
"""

from collections.abc import Sequence
from threading import Lock

import torch
from torch import Tensor

from base_models.catalog import BaseModelEntry
from base_models.families.filled_prompts import filled_up, token_counts
from base_models.families.flow_transformer import FlowTransformer, from_patches, to_patches
from base_models.family import Conditioning, LatentShape, shape_of

_TOKENS = 1024


class QwenImage(FlowTransformer):
    """See BaseModel. The conditioning is `prompt_BTD` of Qwen2.5-VL and `is_token_BT`."""

    def __init__(self, entry: BaseModelEntry, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Load weights of this dtype, but for the autoencoder's."""
        super().__init__(entry, device, dtype)
        self._autoencoder = Lock()

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        pipeline = self.pipeline
        texts = [pipeline.prompt_template_encode.format(prompt) for prompt in prompts]
        tokens = pipeline.tokenizer(texts, padding=True, return_tensors="pt").to(self.device)
        # What it would say next is not wanted, and would be as wide as its vocabulary for every token.
        read_BTD = pipeline.text_encoder(
            **tokens, output_hidden_states=True, use_cache=False, logits_to_keep=1
        ).hidden_states[-1]
        # What the template says before a prompt is the same for all, and not shown to the transformer.
        before = pipeline.prompt_template_encode_start_idx
        is_token_BT = tokens.attention_mask.bool()
        rows = [row[is_token][before:] for row, is_token in zip(read_BTD, is_token_BT, strict=True)]
        return filled_up(rows, _TOKENS)

    def predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor:
        shape, dtype = shape_of(noisy_BCHW), self.denoiser.dtype
        counts = token_counts(conditioning)
        longest = max(counts)
        said_BPC = self.denoiser(
            hidden_states=to_patches(noisy_BCHW.to(dtype)),
            timestep=timesteps_B / 1000,
            encoder_hidden_states=conditioning["prompt_BTD"][:, :longest].to(dtype),
            # Attention without a mask is faster.
            encoder_hidden_states_mask=conditioning["is_token_BT"][:, :longest] if min(counts) < longest else None,
            img_shapes=[[(1, shape[1] // 2, shape[2] // 2)]] * len(counts),
        ).sample
        return from_patches(said_BPC, shape)

    def guide(self, with_prompt_BCHW: Tensor, without_BCHW: Tensor, scale_B111: Tensor) -> Tensor:
        """Patch by patch no longer than the prediction with the prompt, nor shorter."""
        guided_BPC = to_patches(super().guide(with_prompt_BCHW, without_BCHW, scale_B111))
        wanted_BP1 = to_patches(with_prompt_BCHW).norm(dim=-1, keepdim=True)
        scaled_BPC = guided_BPC * (wanted_BP1 / guided_BPC.norm(dim=-1, keepdim=True))
        return from_patches(scaled_BPC, shape_of(with_prompt_BCHW))

    def latent_shape(self, width: int, height: int) -> LatentShape:
        factor = self.pipeline.vae_scale_factor
        return self.pipeline.vae.config.z_dim, height // factor, width // factor

    def to_latents(self, pixels_BCHW: Tensor) -> Tensor:
        with self._autoencoder:
            encoded_BCFHW = self.pipeline.vae.encode(pixels_BCHW.unsqueeze(2)).latent_dist.mode()
        mean_C11, deviation_C11 = self._statistics(encoded_BCFHW)
        return (encoded_BCFHW.squeeze(2) - mean_C11) / deviation_C11

    def to_pixels(self, latents_BCHW: Tensor) -> Tensor:
        mean_C11, deviation_C11 = self._statistics(latents_BCHW)
        scaled_BCHW = latents_BCHW * deviation_C11 + mean_C11
        with self._autoencoder:
            decoded_BCFHW: Tensor = self.pipeline.vae.decode(scaled_BCHW.unsqueeze(2)).sample
        return decoded_BCFHW.squeeze(2)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [C, 1, 1] of the autoencoder's latents."""
        config = self.pipeline.vae.config
        return like.new_tensor(config.latents_mean).view(-1, 1, 1), like.new_tensor(config.latents_std).view(-1, 1, 1)
