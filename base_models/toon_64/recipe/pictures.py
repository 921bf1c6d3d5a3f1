"""Rendered pictures and what each of them shows: drawn by render/ in shards, kept on disk, read as one array.

A dataset is a seed; a shard that is there is not drawn again. Shapes: N pictures, H/W 64.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from base_models.toon_64.recipe.renderer import run_renderer

_SHARD_CHARACTERS = 500
SIZE = 64

STYLES = ("adventurer", "bigsmile", "micah", "peeps", "personas", "pixel", "lorelei", "thumbs")
"""The styles that the base model is trained on."""

Shown = dict[str, Any]
"""What a picture shows, in the words of captions; an absent attribute the style has not, a null one cannot be seen."""


@dataclass(frozen=True)
class Pictures:
    """Rendered pictures: bytes_NHWC (uint8) and what each shows."""

    bytes_NHWC: np.ndarray
    shown: list[Shown]

    def __len__(self) -> int:
        return len(self.shown)

    def pixels(self, rows: Tensor) -> Tensor:
        """Pixels_BCHW in [-1, 1] of these rows."""
        return torch.from_numpy(self.bytes_NHWC[rows.numpy()]).permute(0, 3, 1, 2).float() / 127.5 - 1


def render(folder: Path, dataset: int, characters: int, views: int, styles: tuple[str, ...] = STYLES) -> Pictures:
    """Draw `views` pictures of each of `characters` characters, styles in turn, and read them.

    dataset: a seed; datasets share no character. Needs node and the packages of render/package-lock.json.
    Raises subprocess.CalledProcessError where rendering fails.
    """
    name = folder / f"pictures-{dataset}-{views}-{len(styles)}-{_SHARD_CHARACTERS}"
    name.mkdir(parents=True, exist_ok=True)
    starts = range(0, characters, _SHARD_CHARACTERS)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        shards = list(pool.map(lambda start: _shard(name, dataset, start, views, styles), starts))
    return Pictures(
        np.concatenate([np.memmap(f"{shard}.rgb", np.uint8, "r").reshape(-1, SIZE, SIZE, 3) for shard in shards])[
            : characters * views
        ],
        [json.loads(line) for shard in shards for line in shard.with_suffix(".jsonl").read_text().splitlines()][
            : characters * views
        ],
    )


def _shard(folder: Path, dataset: int, start: int, views: int, styles: tuple[str, ...]) -> Path:
    shard = folder / f"{start:08d}"
    if not (shard.with_suffix(".rgb").exists() and shard.with_suffix(".jsonl").exists()):
        numbers = (str(number) for number in (dataset, start, _SHARD_CHARACTERS, views))
        run_renderer("pictures.mjs", shard, *numbers, ",".join(styles))
    return shard
