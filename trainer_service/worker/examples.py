"""What the training loop learns from: latents and prompt embeddings, computed once and kept on the device.

Shapes: N examples, B batch, C channels, H/W height and width of latents, each example's own.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from base_models.family import BaseModel, Conditioning


@dataclass(frozen=True)
class ExampleSet:
    """Pictures and their prompts, encoded. `loss_weights` are 1HW, None where every place counts the same."""

    latents: tuple[Tensor, ...]
    conditioning: Conditioning
    prompts: tuple[str, ...]
    loss_weights: tuple[Tensor | None, ...]

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def shapes(self) -> list[torch.Size]:
        """The shape of each picture's latents: those of one shape can share a batch."""
        return [latents_CHW.shape for latents_CHW in self.latents]

    def latents_of(self, rows: Sequence[int]) -> Tensor:
        """Latents_BCHW of examples of one shape."""
        return torch.stack([self.latents[row] for row in rows])

    def loss_weights_of(self, rows: Sequence[int]) -> Tensor | None:
        """Weights_B1HW of examples of one shape; None where all count the same everywhere."""
        weights = [self.loss_weights[row] for row in rows]
        if all(weight is None for weight in weights):
            return None
        plain_1HW = torch.ones_like(self.latents[rows[0]][:1])
        return torch.stack([plain_1HW if weight is None else weight for weight in weights])

    def only(self, rows: Sequence[int]) -> "ExampleSet":
        """Some of the examples."""
        rows_B = torch.tensor(list(rows), dtype=torch.long, device=self.latents[0].device)
        return ExampleSet(
            tuple(self.latents[row] for row in rows),
            pick(self.conditioning, rows_B),
            tuple(self.prompts[row] for row in rows),
            tuple(self.loss_weights[row] for row in rows),
        )


@dataclass(frozen=True)
class Examples:
    """Everything the loop needs: the subject; what validation looks at; the empty prompt; the class, where asked."""

    subject: ExampleSet
    validation: ExampleSet
    empty_prompt: Conditioning
    prior: ExampleSet | None


@torch.no_grad()
def encode(
    base: BaseModel,
    pictures: Sequence[Tensor],
    prompts: Sequence[str],
    loss_weights: Sequence[Tensor | None],
    report: Callable[[int, int], None],
    at_once: int = 8,
) -> ExampleSet:
    """Encode pictures (pixels_CHW of any shapes) and prompts, one a picture.

    loss_weights: 1HW in pixels, or None. at_once: most pictures or prompts in one pass.
    `report(done, total)` may raise to interrupt.
    """
    latents: dict[int, Tensor] = {}
    conditioning = []
    for rows in chunks_of_one_shape([picture.shape for picture in pictures], range(len(pictures)), at_once):
        report(len(latents), len(pictures))
        encoded_BCHW = base.encode_images(torch.stack([pictures[row] for row in rows]))
        latents |= dict(zip(rows, encoded_BCHW, strict=True))
    for start in range(0, len(prompts), at_once):
        conditioning.append(base.encode_prompts(prompts[start : start + at_once]))
    report(len(pictures), len(pictures))
    ordered = tuple(latents[row] for row in range(len(pictures)))
    return ExampleSet(
        ordered,
        {name: torch.cat([part[name] for part in conditioning]) for name in conditioning[0]},
        tuple(prompts),
        tuple(
            None if weight is None else functional.adaptive_avg_pool2d(weight.to(latent.device), latent.shape[-2:])
            for weight, latent in zip(loss_weights, ordered, strict=True)
        ),
    )


@torch.no_grad()
def encode_empty_prompt(base: BaseModel) -> Conditioning:
    """The conditioning of the empty prompt, a batch of one."""
    return base.encode_prompts([""])


def chunks_of_one_shape(shapes: Sequence[torch.Size], rows: Sequence[int], size: int) -> Iterator[list[int]]:
    """The rows in groups of at most `size` whose shapes are equal, in the order in which shapes first appear."""
    by_shape: dict[torch.Size, list[int]] = {}
    for row in rows:
        by_shape.setdefault(shapes[row], []).append(row)
    for group in by_shape.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]


def pick(conditioning: Conditioning, rows_B: Tensor) -> Conditioning:
    """The given rows of a conditioning."""
    return {name: values[rows_B] for name, values in conditioning.items()}


def where(mask_B: Tensor, yes: Conditioning, no: Conditioning) -> Conditioning:
    """Row by row: `yes` where the mask is true, else `no` (a batch of one, repeated)."""
    return {
        name: torch.where(mask_B.view(-1, *(1 for _ in values.shape[1:])), values, no[name])
        for name, values in yes.items()
    }
