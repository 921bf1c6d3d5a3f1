"""The Z-Image family (base and Turbo): Qwen3 reads prompts, one transformer takes their tokens and patches alike.

Its one rule: the transformer is handed each prompt in its own length, because it fills them up itself, to a multiple of
32 tokens that it learned to take for nothing.

Shapes: B batch, C channels, H/W height and width of latents, T tokens, D features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from base_models.families.filled_prompts import filled_up, token_counts
from base_models.families.flow_transformer import FlowTransformer
from base_models.family import Conditioning

_TOKENS = 512


class ZImage(FlowTransformer):
    """See BaseModel. The conditioning is `prompt_BTD` of Qwen3 and `is_token_BT`."""

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        # The chat template, and the layer before the last.
        read, _ = self.pipeline.encode_prompt(
            list(prompts), self.device, do_classifier_free_guidance=False, max_sequence_length=_TOKENS
        )
        return filled_up(read, _TOKENS)

    def predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor:
        dtype, prompt_BTD = self.denoiser.dtype, conditioning["prompt_BTD"]
        said = self.denoiser(
            # Of one frame each.
            list(noisy_BCHW.to(dtype).unsqueeze(2)),
            # Its time runs from noise to picture, and so does its velocity.
            1 - timesteps_B / 1000,
            [row[:count].to(dtype) for row, count in zip(prompt_BTD, token_counts(conditioning), strict=True)],
        ).sample
        return -torch.stack(said).squeeze(2)
