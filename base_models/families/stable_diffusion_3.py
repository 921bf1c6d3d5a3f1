"""Stable Diffusion 3 and 3.5 (Esser et al. 2024, https://arxiv.org/abs/2403.03206): two CLIPs and T5, a transformer.

Its one rule: both CLIPs are shown only as much of a prompt as they can take, as by the pipeline; T5 reads all of it,
and where a folder lacks it, zeros stand in its place.

Shapes: B batch, C channels, H/W height and width of latents, T tokens, D features.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from base_models.families.flow_transformer import FlowTransformer
from base_models.family import Conditioning, LatentShape

_T5_TOKENS = 256


class StableDiffusion3(FlowTransformer):
    """See BaseModel. The conditioning is `prompt_BTD`, CLIP's tokens before T5's, and `pooled_BD` of both CLIPs."""

    def schedule(self, shape: LatentShape, step_count: int) -> Mapping[str, Any]:
        # The scheduler's own steps, of which the last is at less noise than the 1 / step_count of other pipelines.
        return {"num_inference_steps": step_count, "mu": self.shift(shape, step_count)}

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        pipeline, texts = self.pipeline, list(prompts)
        clips = ((pipeline.tokenizer, pipeline.text_encoder), (pipeline.tokenizer_2, pipeline.text_encoder_2))
        hidden, pooled = [], []
        for tokenizer, encoder in clips:
            tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
            encoded = encoder(tokens.to(self.device), output_hidden_states=True)
            # The last layer but one, without the norm that follows the last.
            hidden.append(encoded.hidden_states[-2])
            pooled.append(encoded.text_embeds)
        clip_BTD, t5_BTD = torch.cat(hidden, dim=-1), self._read_by_t5(texts)
        clip_BTD = torch.nn.functional.pad(clip_BTD, (0, t5_BTD.shape[-1] - clip_BTD.shape[-1]))
        return {"prompt_BTD": torch.cat([clip_BTD, t5_BTD], dim=1), "pooled_BD": torch.cat(pooled, dim=-1)}

    def predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor:
        dtype = self.denoiser.dtype
        said_BCHW: Tensor = self.denoiser(
            hidden_states=noisy_BCHW.to(dtype),
            timestep=timesteps_B,
            encoder_hidden_states=conditioning["prompt_BTD"].to(dtype),
            pooled_projections=conditioning["pooled_BD"].to(dtype),
        ).sample
        return said_BCHW

    def _read_by_t5(self, texts: list[str]) -> Tensor:
        pipeline = self.pipeline
        if pipeline.text_encoder_3 is None:
            width = self.denoiser.config.joint_attention_dim
            return torch.zeros(len(texts), _T5_TOKENS, width, device=self.device, dtype=pipeline.text_encoder.dtype)
        tokens = pipeline.tokenizer_3(texts, padding="max_length", max_length=_T5_TOKENS, return_tensors="pt").input_ids
        read_BTD: Tensor = pipeline.text_encoder_3(tokens.to(self.device))[0]
        return read_BTD
