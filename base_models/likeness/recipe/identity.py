"""Trains the identity encoder: a backbone that tells characters and styles apart, then what to expect of either.

The backbone learns characters by the supervised contrastive loss (Khosla et al. 2020, https://arxiv.org/abs/2004.11362,
equation 2) and styles by the normalized softmax (Zhai and Wu 2018, https://arxiv.org/abs/1811.12649, equation 3). How
pictures of one character and of one style vary is then measured, in closed form.

Shapes: B batch, G characters of a batch, S styles, N pictures, D features.
"""

import argparse
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from base_models.likeness import backbone
from base_models.likeness.identity_encoder import IdentityEncoder
from base_models.likeness.recipe.augmentation import RESTYLINGS, recolour, smear, soften
from base_models.toon_64.recipe.pictures import STYLES, Pictures, render

TRAINING_STYLES = (*STYLES, "croodles")
UNSEEN_STYLES = ("bigears", "notion")
"""Styles that training never sees; the styles of the six sets are in neither list."""

_STYLES_A_STEP, _CHARACTERS, _VIEWS = 4, 6, 3
_TWINS = 3  # of a style's characters in a step, how many are chosen alike in colours
_CHARACTERS_IN_ALL, _VIEWS_IN_ALL = 4500, 8
_LEARNING_RATE, _WARMUP = 2e-3, 50
_TEMPERATURE = 0.1
_STRANGERS, _SMEARED = 4.0, 2.0  # weights of stranger_loss and smeared_loss
_SMEARED_COSINE = 0.3
_HEAD_FEATURES = 64
_CHARACTER_FLOOR, _STYLE_FLOOR = 0.01, 0.1


def contrastive_loss(features_BD: Tensor, labels_B: Tensor, temperature: float = _TEMPERATURE) -> Tensor:
    """L_out of Khosla et al., equation 2: every other row with the same label is a positive."""
    logits_BB = features_BD @ features_BD.T / temperature
    itself = torch.eye(len(labels_B), dtype=torch.bool)
    log_probability = logits_BB.masked_fill(itself, -math.inf).log_softmax(1).masked_fill(itself, 0)
    positive = (labels_B[:, None] == labels_B[None, :]) & ~itself
    return -(log_probability * positive).sum(1).div(positive.sum(1).clamp(min=1)).mean()


def stranger_loss(features_BD: Tensor, characters_B: Tensor, styles_B: Tensor) -> Tensor:
    """Mean squared cosine, where positive, of strangers of one style: contrast alone leaves them half alike."""
    strangers_BB = (styles_B[:, None] == styles_B[None, :]) & (characters_B[:, None] != characters_B[None, :])
    return (features_BD @ features_BD.T)[strangers_BB].clamp(min=0).square().mean()


def smeared_loss(features_BD: Tensor, smeared_GD: Tensor) -> Tensor:
    """How much nearer than a cosine of 0.3 a smeared picture is to its own character: mean of squares.

    features_BD: _VIEWS rows of each of G characters.
    """
    views_GVD = features_BD.view(len(smeared_GD), _VIEWS, -1)
    cosine_GV = (views_GVD @ smeared_GD[:, :, None]).squeeze(-1)
    return (cosine_GV - _SMEARED_COSINE).clamp(min=0).square().mean()


def style_loss(style_BD: Tensor, proxies_SD: Tensor, labels_B: Tensor, temperature: float = _TEMPERATURE) -> Tensor:
    """Normalized softmax of Zhai and Wu, equation 3: cross-entropy of the cosines to one learnt proxy a style."""
    return functional.cross_entropy(style_BD @ functional.normalize(proxies_SD, dim=1).T / temperature, labels_B)


class _Contrast(nn.Module):
    """The backbone with a head for styles and one for characters; the heads are left behind."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = backbone.Backbone()
        self.style, self.character = _head(), _head()

    def forward(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        features_BD = self.backbone(pixels_BCHW)
        return functional.normalize(self.style(features_BD), dim=1), functional.normalize(
            self.character(features_BD), dim=1
        )


def _head() -> nn.Module:
    wide = backbone.FEATURES
    return nn.Sequential(nn.Linear(wide, wide), nn.ReLU(inplace=True), nn.Linear(wide, _HEAD_FEATURES))


@dataclass(frozen=True)
class Batch:
    """One step's pictures: _VIEWS of each of G characters, labelled, and a smeared one of each."""

    pixels_BCHW: Tensor
    smeared_GCHW: Tensor
    styles_B: Tensor
    characters_B: Tensor


class Draw:
    """Draws batches: pictures are character-major, `styles` styles in turn, `views` pictures of each character."""

    def __init__(self, pictures: Pictures, styles: int, views: int) -> None:
        self._pictures, self._styles, self._views = pictures, styles, views
        self._characters = len(pictures) // views
        self._alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for character in range(self._characters):
            self._alike[self._colours(character)].append(character)

    def batch(self, random: torch.Generator) -> Batch:
        """One step's pictures: recoloured and restyled by style, then softened. A restyled style is a new one."""
        rows, style_labels = [], []
        for style in torch.randperm(self._styles, generator=random)[:_STYLES_A_STEP].tolist():
            # More than half of the time a style is itself.
            restyling = max(0, int(torch.randint(-len(RESTYLINGS), len(RESTYLINGS), (), generator=random)))
            style_labels.append(style + self._styles * restyling)
            for character in self._characters_of(style, random):
                rows.append(character * self._views + torch.randperm(self._views, generator=random)[:_VIEWS])
        group = _CHARACTERS * _VIEWS
        pixels_BCHW = recolour(self._pictures.pixels(torch.cat(rows)), group, random)
        restyled = [
            RESTYLINGS[label // self._styles](pixels)
            for label, pixels in zip(style_labels, pixels_BCHW.split(group), strict=True)
        ]
        pixels_BCHW = torch.cat(restyled)
        return Batch(
            soften(pixels_BCHW, random),
            soften(smear(pixels_BCHW[::_VIEWS], random), random),
            torch.tensor(style_labels).repeat_interleave(group),
            torch.arange(len(rows)).repeat_interleave(_VIEWS),
        )

    def _characters_of(self, style: int, random: torch.Generator) -> list[int]:
        """Characters of a style, the first few alike in colours, so that colours alone do not tell them apart."""
        order = (torch.randperm(self._characters // self._styles, generator=random) * self._styles + style).tolist()
        alike = self._alike[self._colours(order[0])]
        twins = [alike[index] for index in torch.randperm(len(alike), generator=random)[:_TWINS].tolist()]
        return list(dict.fromkeys([*twins, *order]))[:_CHARACTERS]

    def _colours(self, character: int) -> tuple[str, ...]:
        shown = self._pictures.shown[character * self._views]
        return tuple(str(shown.get(name)) for name in ("style", "skin", "hairColor", "body"))


def train_backbone(pictures: Pictures, styles: int, views: int, steps: int, seed: int = 0) -> dict[str, Tensor]:
    """Train a backbone for so many steps of 96 pictures and give its weights. Prints the losses."""
    torch.manual_seed(seed)
    network = _Contrast().to(memory_format=torch.channels_last).train()
    proxies_SD = nn.Parameter(torch.randn(styles * len(RESTYLINGS), _HEAD_FEATURES))
    optimizer = torch.optim.AdamW([*network.parameters(), proxies_SD], lr=_LEARNING_RATE, weight_decay=1e-2, fused=True)
    draw = Draw(pictures, styles, views)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = (
                _LEARNING_RATE * min(1, (step + 1) / _WARMUP) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
            )
        batch = draw.batch(torch.Generator().manual_seed(seed * 1_000_003 + step))
        together = torch.cat([batch.pixels_BCHW, batch.smeared_GCHW]).contiguous(memory_format=torch.channels_last)
        style_BD, character_BD = network(together)
        count = len(batch.characters_B)
        losses = {
            "contrast": contrastive_loss(character_BD[:count], batch.characters_B),
            "strangers": _STRANGERS * stranger_loss(character_BD[:count], batch.characters_B, batch.styles_B),
            "smeared": _SMEARED * smeared_loss(character_BD[:count], character_BD[count:]),
            "style": style_loss(style_BD[:count], proxies_SD, batch.styles_B),
        }
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}:", *(f"{name} {loss.item():.3f}" for name, loss in losses.items()), flush=True)
    return network.backbone.state_dict()


@torch.no_grad()
def measure_variation(weights: dict[str, Tensor], pictures: Pictures, views: int) -> IdentityEncoder:
    """An encoder of a trained backbone: what its statistics are on average, and how they vary within a class."""
    encoder = IdentityEncoder()
    own = encoder.backbone.state_dict()
    encoder.backbone.load_state_dict({name: weights[name] for name in own})
    encoder.eval()
    statistics_ND = torch.cat(
        [encoder.statistics(pictures.pixels(rows)) for rows in torch.arange(len(pictures)).split(100)]
    )
    characters_N = torch.arange(len(pictures)) // views
    names = sorted({shown["style"] for shown in pictures.shown})
    styles_N = torch.tensor([names.index(shown["style"]) for shown in pictures.shown])
    encoder.mean_D.copy_(statistics_ND.mean(0))
    encoder.character_DD.copy_(within_class_normalization(statistics_ND, characters_N, _CHARACTER_FLOOR))
    encoder.style_DD.copy_(within_class_normalization(statistics_ND, styles_N, _STYLE_FLOOR))
    return encoder


def within_class_normalization(features_ND: Tensor, classes_N: Tensor, floor: float) -> Tensor:
    """The inverse square root, [D, D], of the mean covariance within classes (Hatch et al. 2006, section 2.2).

    classes_N: 0, 1, 2, ... floor: what is added to the diagonal, as a share of its mean; rare directions stay quiet.
    """
    count = int(classes_N.max()) + 1
    sums_KD = torch.zeros(count, features_ND.shape[1]).index_add_(0, classes_N, features_ND)
    means_KD = sums_KD / classes_N.bincount(minlength=count)[:, None]
    within_ND = features_ND - means_KD[classes_N]
    covariance_DD = within_ND.T @ within_ND / len(within_ND)
    covariance_DD += floor * covariance_DD.diagonal().mean() * torch.eye(len(covariance_DD))
    values_D, vectors_DD = torch.linalg.eigh(covariance_DD)
    return vectors_DD @ torch.diag(values_D.rsqrt()) @ vectors_DD.T


@torch.no_grad()
def separation(encoder: IdentityEncoder, pictures: Pictures, views: int) -> dict[str, float]:
    """How far apart the encoder holds characters and styles that training never saw: mean cosines, nearest pictures."""
    parts = [encoder(pictures.pixels(rows)) for rows in torch.arange(len(pictures)).split(100)]
    style_cosine, character_cosine = (features @ features.T for features in map(torch.cat, zip(*parts, strict=True)))
    characters = torch.arange(len(pictures)) // views
    names = sorted({shown["style"] for shown in pictures.shown})
    styles = torch.tensor([names.index(shown["style"]) for shown in pictures.shown])
    same = characters[:, None] == characters[None, :]
    same_style = styles[:, None] == styles[None, :]
    itself = torch.eye(len(pictures), dtype=torch.bool)
    nearest = character_cosine.masked_fill(itself, -2).argmax(1)
    return {
        "character: same": character_cosine[same & ~itself].mean().item(),
        "character: stranger of its style": character_cosine[same_style & ~same].mean().item(),
        "character: nearest is the same": (characters[nearest] == characters).float().mean().item(),
        "style: same": style_cosine[same_style & ~same].mean().item(),
        "style: another": style_cosine[~same_style].mean().item(),
    }


def main() -> None:
    """Train, report on styles seen and unseen, write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True, help="folder for rendered pictures")
    parser.add_argument("--output", type=Path, required=True, help="file of the weights")
    parser.add_argument("--steps", type=int, default=1000)
    arguments = parser.parse_args()
    pictures = render(arguments.pictures, 3, _CHARACTERS_IN_ALL, _VIEWS_IN_ALL, TRAINING_STYLES)
    weights = train_backbone(pictures, len(TRAINING_STYLES), _VIEWS_IN_ALL, arguments.steps)
    encoder = measure_variation(weights, pictures, _VIEWS_IN_ALL)
    encoder.save(arguments.output)
    for title, dataset, styles in (("unseen characters", 5, TRAINING_STYLES), ("unseen styles", 4, UNSEEN_STYLES)):
        print(title, separation(encoder, render(arguments.pictures, dataset, 400, 8, styles), 8))


if __name__ == "__main__":
    main()
