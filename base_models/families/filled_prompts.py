"""Prompts of any length in one batch: filled up with zeros to a fixed length, and cut again before they are used.

Its one rule: whoever cuts counts on the host, once a forward pass: lengths are shapes, so a GPU is waited for.

Shapes: B batch, T tokens, D features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from base_models.family import Conditioning


def filled_up(prompts: Sequence[Tensor], longest: int) -> Conditioning:
    """`prompt_BTD` and `is_token_BT` of prompts_TD. longest: T of all of them, whatever they are batched with later."""
    tokens_T = torch.arange(longest, device=prompts[0].device)
    return {
        "prompt_BTD": torch.stack([functional.pad(prompt, (0, 0, 0, longest - len(prompt))) for prompt in prompts]),
        "is_token_BT": torch.stack([tokens_T < len(prompt) for prompt in prompts]),
    }


def token_counts(conditioning: Conditioning) -> list[int]:
    """How many tokens each of the prompts has; they are its first."""
    counts: list[int] = conditioning["is_token_BT"].sum(dim=1).tolist()
    return counts
