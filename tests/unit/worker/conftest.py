"""The bundled base model, loaded once, and a few of its pictures, encoded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from base_models.catalog import BaseModelEntry, read_allow_list
from base_models.stable_diffusion import StableDiffusion
from trainer_service.worker.examples import Examples, encode, encode_empty_prompt

COUNT = 4


@pytest.fixture(scope="session")
def entry() -> BaseModelEntry:
    return read_allow_list(["toon-64"])["toon-64"]


@pytest.fixture(scope="session")
def base(entry: BaseModelEntry) -> StableDiffusion:
    return StableDiffusion(entry, torch.device("cpu"))


@pytest.fixture(scope="session")
def examples(base: StableDiffusion, entry: BaseModelEntry) -> Examples:
    paths: list[Path] = sorted((entry.folder / "sets" / "micah-b" / "train").glob("*.png"))[:COUNT]
    pixels = [torch.from_numpy(np.array(Image.open(path).convert("RGB"), dtype=np.float32)) for path in paths]
    pixels_NCHW = torch.stack(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    prompts = [f"a picture of sks character, {path.with_suffix('.txt').read_text().strip()}" for path in paths]
    subject = encode(base, list(pixels_NCHW), prompts, [None] * COUNT, lambda done, total: None)
    return Examples(subject, subject, encode_empty_prompt(base), prior=None)
