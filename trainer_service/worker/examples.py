"""What the training loop learns from: latents and prompt embeddings, computed once and kept on the device.

Shapes: N examples, B batch, C channels, H/W height and width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from base_models.family import BaseModel, Conditioning

_ENCODE_BATCH = 8


@dataclass(frozen=True)
class ExampleSet:
    """Pictures and their prompts, encoded."""

    latents_NCHW: Tensor
    conditioning: Conditioning

    def __len__(self) -> int:
        return len(self.latents_NCHW)


@dataclass(frozen=True)
class Examples:
    """Everything the loop needs: the subject, the empty prompt, and the class where prior preservation is on."""

    subject: ExampleSet
    empty_prompt: Conditioning
    prior: ExampleSet | None


@torch.no_grad()
def encode(
    base: BaseModel, pixels_NCHW: Tensor, prompts: Sequence[str], report: Callable[[int, int], None]
) -> ExampleSet:
    """Encode pictures and prompts, one prompt a picture. `report(done, total)` may raise to interrupt."""
    latents, conditioning = [], []
    for start in range(0, len(prompts), _ENCODE_BATCH):
        report(start, len(prompts))
        rows = slice(start, start + _ENCODE_BATCH)
        latents.append(base.encode_images(pixels_NCHW[rows]))
        conditioning.append(base.encode_prompts(prompts[rows]))
    report(len(prompts), len(prompts))
    together = {name: torch.cat([part[name] for part in conditioning]) for name in conditioning[0]}
    return ExampleSet(torch.cat(latents), together)


@torch.no_grad()
def encode_empty_prompt(base: BaseModel) -> Conditioning:
    """The conditioning of the empty prompt, a batch of one."""
    return base.encode_prompts([""])


def pick(conditioning: Conditioning, rows_B: Tensor) -> Conditioning:
    """The given rows of a conditioning."""
    return {name: values[rows_B] for name, values in conditioning.items()}


def where(mask_B: Tensor, yes: Conditioning, no: Conditioning) -> Conditioning:
    """Row by row: `yes` where the mask is true, else `no` (a batch of one, repeated)."""
    return {
        name: torch.where(mask_B.view(-1, *(1 for _ in values.shape[1:])), values, no[name])
        for name, values in yes.items()
    }
