"""Which examples a step sees, and with what noise: functions of (seed, step) and of nothing else.

Its one rule: everything random is drawn on the CPU, example by example, so that it depends neither on the device nor
on how a step is divided into parts.

Shapes: B batch, C channels, H/W height and width of latents.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer_service.worker.examples import ExampleSet, chunks_of_one_shape


@dataclass(frozen=True)
class Draw:
    """One example's part in a step: its row, its noise_CHW, its place in the noise schedule, 0 to 1, and whether its
    prompt is dropped."""

    row: int
    noise_CHW: Tensor
    uniform: float
    dropped: bool


def generator(seed: int, step: int) -> torch.Generator:
    """The randomness of a step. Hashed, because torch's CPU generator takes only 32 bits of what it is given."""
    digest = hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest))


def draws(
    examples: ExampleSet,
    seed: int,
    step: int,
    count: int,
    batch_size: int,
    caption_dropout: float,
    noise_offset: float,
    random: torch.Generator,
) -> list[Draw]:
    """The `count` examples of a step (from 1)."""
    rows = example_order(seed, examples.shapes, (step - 1) * count, count, batch_size)
    found = []
    for place, row in enumerate(rows):
        noise_CHW = torch.randn(examples.latents[row].shape, generator=random)
        # https://www.crosslabs.org/blog/diffusion-with-offset-noise
        if noise_offset:
            noise_CHW = noise_CHW + noise_offset * torch.randn((len(noise_CHW), 1, 1), generator=random)
        within, dropped = torch.rand(2, generator=random).tolist()
        # One from each of `count` equal parts of the schedule: less noise in the gradient than free draws.
        found.append(Draw(row, noise_CHW, (place + within) / count, dropped < caption_dropout))
    return found


def example_order(seed: int, shapes: Sequence[torch.Size], position: int, count: int, batch_size: int) -> list[int]:
    """`count` examples from `position` (in examples, from 0) on: every epoch is a permutation of all."""
    order: list[int] = []
    while len(order) < count:
        epoch, index = divmod(position + len(order), len(shapes))
        order += _epoch(seed, epoch, shapes, batch_size)[index : index + count - len(order)]
    return order


def _epoch(seed: int, epoch: int, shapes: Sequence[torch.Size], batch_size: int) -> list[int]:
    """A permutation in which neighbours have one shape: whole batches of a shape, and last what is left over."""
    permutation = torch.randperm(len(shapes), generator=generator(seed, -1 - epoch)).tolist()
    batches, rest = list[list[int]](), list[int]()
    for rows in chunks_of_one_shape(shapes, permutation, batch_size):
        if len(rows) == batch_size:
            batches.append(rows)
        else:
            rest += rows
    # Back in the order of the permutation, so that shapes come mixed; with one shape this changes nothing.
    place = {row: index for index, row in enumerate(permutation)}
    batches.sort(key=lambda rows: place[rows[0]])
    return [row for rows in batches for row in rows] + rest
