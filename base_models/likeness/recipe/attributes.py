"""Trains the attribute classifier on renders, whose attributes are known because the renderer chose them.

Shapes: B batch, C channels, H/W 64.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from base_models.likeness.attributes import AttributeClassifier
from base_models.likeness.recipe.augmentation import soften
from base_models.toon_64.recipe.pictures import Pictures, Shown, render

ATTRIBUTES = ("style", "background", "hair", "hairColor", "skin", "clothes", "glasses", "hat", "beard", "expression")

_PICTURES, _UNSEEN = 100_000, 4000
_BATCH = 64
_LEARNING_RATE, _WARMUP = 2e-3, 50
_STRENGTH = 0.4  # of the softening: a mouth is three pixels high
_UNKNOWN = -100  # what cross_entropy ignores


def head_values(shown: list[Shown]) -> dict[str, tuple[str, ...]]:
    """Every value that each attribute takes in these pictures."""
    return {name: tuple(sorted({s[name] for s in shown if s.get(name) is not None})) for name in ATTRIBUTES}


def labels(shown: list[Shown], heads: dict[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """Class indices of each attribute, one a picture; _UNKNOWN where the style has it not or it cannot be seen."""
    return {
        name: torch.tensor([_UNKNOWN if s.get(name) is None else values.index(s[name]) for s in shown])
        for name, values in heads.items()
    }


def train(
    pictures: Pictures, steps: int, seed: int = 0, start: AttributeClassifier | None = None
) -> AttributeClassifier:
    """Train a classifier for so many steps of 64 pictures. Prints the loss, the sum over attributes.

    start: what an earlier round left; give another seed then.
    """
    torch.manual_seed(seed)
    heads = head_values(pictures.shown)
    classifier = start or AttributeClassifier(heads)
    classifier = classifier.to(memory_format=torch.channels_last).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=_LEARNING_RATE, weight_decay=1e-2, fused=True)
    known = labels(pictures.shown, heads)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = (
                _LEARNING_RATE * min(1, (step + 1) / _WARMUP) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
            )
        random = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows_B = torch.randint(0, len(pictures), (_BATCH,), generator=random)
        pixels_BCHW = soften(pictures.pixels(rows_B), random, _STRENGTH).contiguous(memory_format=torch.channels_last)
        logits = classifier(pixels_BCHW)
        loss = sum(
            (functional.cross_entropy(logits[name], known[name][rows_B], ignore_index=_UNKNOWN) for name in heads),
            start=torch.zeros(()),
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}: {loss.item():.3f}", flush=True)
    return classifier.eval()


@torch.no_grad()
def accuracy(classifier: AttributeClassifier, pictures: Pictures) -> dict[str, float]:
    """Share of pictures whose attribute is read right, among those where it can be seen."""
    predicted: dict[str, list[str]] = {name: [] for name in classifier.heads}
    for rows in torch.arange(len(pictures)).split(100):
        for name, values in classifier.predict(pictures.pixels(rows)).items():
            predicted[name] += values
    result = {}
    for name, values in predicted.items():
        pairs = [(s[name], value) for s, value in zip(pictures.shown, values, strict=True) if s.get(name) is not None]
        result[name] = sum(asked == read for asked, read in pairs) / len(pairs)
    return result


def main() -> None:
    """Train, report on unseen renders, write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True, help="folder for rendered pictures")
    parser.add_argument("--output", type=Path, required=True, help="file of the weights")
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--start", type=Path, help="weights of an earlier round, to go on from")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = AttributeClassifier.load(torch.device("cpu"), arguments.start) if arguments.start else None
    classifier = train(render(arguments.pictures, 1, _PICTURES, 1), arguments.steps, arguments.seed, start)
    classifier.save(arguments.output)
    for name, share in accuracy(classifier, render(arguments.pictures, 2, _UNSEEN, 1)).items():
        print(f"{name}: {share:.4f}")


if __name__ == "__main__":
    main()
