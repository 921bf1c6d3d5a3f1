"""The FLUX.1 family (dev and schnell): T5 for every word and CLIP for the whole, a transformer over patches.

Its one rule: CLIP is shown only as much of a prompt as it can take, as by the pipeline; T5 reads all of it.

Shapes: B batch, C channels, H/W height and width of latents, P patches, T tokens, D features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from base_models.families.flow_transformer import FlowTransformer, from_patches, to_patches
from base_models.family import Conditioning, shape_of

_TOKENS = 512


class Flux(FlowTransformer):
    """See BaseModel. The conditioning is `prompt_BTD` of T5 and `pooled_BD` of CLIP; dev's `guidance_B` too."""

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        pipeline, texts = self.pipeline, list(prompts)
        clip = pipeline.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        t5 = pipeline.tokenizer_2(texts, padding="max_length", max_length=_TOKENS, return_tensors="pt").input_ids
        told = {
            "prompt_BTD": pipeline.text_encoder_2(t5.to(self.device))[0],
            "pooled_BD": pipeline.text_encoder(clip.to(self.device)).pooler_output,
        }
        if self.entry.guidance == "embedded":
            told["guidance_B"] = torch.ones(len(texts), device=self.device)
        return told

    def predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor:
        shape, dtype = shape_of(noisy_BCHW), self.denoiser.dtype
        prompt_BTD = conditioning["prompt_BTD"].to(dtype)
        said_BPC = self.denoiser(
            hidden_states=to_patches(noisy_BCHW.to(dtype)),
            timestep=timesteps_B / 1000,
            guidance=conditioning.get("guidance_B"),
            pooled_projections=conditioning["pooled_BD"].to(dtype),
            encoder_hidden_states=prompt_BTD,
            txt_ids=noisy_BCHW.new_zeros(prompt_BTD.shape[1], 3),
            img_ids=_places(shape[1] // 2, shape[2] // 2, noisy_BCHW.device),
        ).sample
        return from_patches(said_BPC, shape)


def _places(rows: int, columns: int, device: torch.device) -> Tensor:
    """[P, 3]: 0, row and column of each patch."""
    row_P, column_P = torch.meshgrid(
        torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
    )
    return torch.stack([torch.zeros_like(row_P), row_P, column_P], dim=-1).flatten(0, 1).float()
