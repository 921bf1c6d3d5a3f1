"""The FLUX.2 klein family: a language model reads the prompt, and what three of its layers think of it is told.

Its one rule: latents are patches of two by two of the autoencoder's, normalised by its own statistics: what is a place
to the steps is one to the transformer, and noise is drawn in that shape.

Shapes: B batch, C channels, H/W height and width of latents, P places, T tokens, D features.
"""

from collections.abc import Sequence

import torch
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from base_models.families.flow_transformer import FlowTransformer
from base_models.family import Conditioning, LatentShape

_TOKENS = 512
_LAYERS = (9, 18, 27)
_PATCH = 2


class Flux2Klein(FlowTransformer):
    """See BaseModel. The conditioning is `prompt_BTD`, marks that fill it up included, as by the pipeline."""

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        tokenizer, encoder = self.pipeline.tokenizer, self.pipeline.text_encoder
        asked = [[{"role": "user", "content": prompt}] for prompt in prompts]
        texts = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, enable_thinking=False)
        tokens = tokenizer(texts, padding="max_length", max_length=_TOKENS, return_tensors="pt").to(self.device)
        # What it would say next is not wanted, and would be as wide as its vocabulary for every token.
        encoded = encoder(**tokens, output_hidden_states=True, use_cache=False, logits_to_keep=1)
        return {"prompt_BTD": torch.cat([encoded.hidden_states[layer] for layer in _LAYERS], dim=-1)}

    def latent_shape(self, width: int, height: int) -> LatentShape:
        channels, rows, columns = super().latent_shape(width, height)
        return channels * _PATCH**2, rows // _PATCH, columns // _PATCH

    def to_latents(self, pixels_BCHW: Tensor) -> Tensor:
        mean_C11, deviation_C11 = self._statistics()
        patches_BCHW = pixel_unshuffle(self.pipeline.vae.encode(pixels_BCHW).latent_dist.mode(), _PATCH)
        return (patches_BCHW - mean_C11) / deviation_C11

    def to_pixels(self, latents_BCHW: Tensor) -> Tensor:
        mean_C11, deviation_C11 = self._statistics()
        patches_BCHW = latents_BCHW * deviation_C11 + mean_C11
        return self.pipeline.vae.decode(pixel_shuffle(patches_BCHW, _PATCH)).sample

    def shift(self, shape: LatentShape, step_count: int) -> float:
        """Mu, by places and by steps: the published model's own code fitted it to both."""
        _, height, width = shape
        return compute_empirical_mu(height * width, step_count)

    def predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor:
        dtype, device = self.denoiser.dtype, noisy_BCHW.device
        prompt_BTD = conditioning["prompt_BTD"].to(dtype)
        said_BPC = self.denoiser(
            hidden_states=noisy_BCHW.to(dtype).flatten(2).transpose(1, 2),
            timestep=timesteps_B / 1000,
            encoder_hidden_states=prompt_BTD,
            txt_ids=_positions(1, 1, prompt_BTD.shape[1], device),
            img_ids=_positions(*noisy_BCHW.shape[2:], 1, device),
        ).sample
        return said_BPC.transpose(1, 2).reshape(noisy_BCHW.shape)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [C, 1, 1] of patches."""
        vae = self.pipeline.vae
        variance_C = vae.bn.running_var + vae.config.batch_norm_eps
        return vae.bn.running_mean.view(-1, 1, 1), variance_C.sqrt().view(-1, 1, 1)


def _positions(rows: int, columns: int, tokens: int, device: torch.device) -> Tensor:
    """[P or T, 4]: 0, row, column and place in the prompt of each."""
    return torch.cartesian_prod(*(torch.arange(count, device=device) for count in (1, rows, columns, tokens)))
