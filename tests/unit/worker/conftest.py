"""The bundled base model, loaded once, and a few of its pictures, encoded."""

import pytest
import torch

from base_models.catalog import BaseModelEntry, read_allow_list
from base_models.families.stable_diffusion import StableDiffusion
from tests.unit.worker.loop_runs import bundled_examples
from trainer_service.worker.examples import Examples


@pytest.fixture(scope="session")
def entry() -> BaseModelEntry:
    return read_allow_list(["toon-64"])["toon-64"]


@pytest.fixture(scope="session")
def base(entry: BaseModelEntry) -> StableDiffusion:
    return StableDiffusion(entry, torch.device("cpu"))


@pytest.fixture(scope="session")
def examples(base: StableDiffusion, entry: BaseModelEntry) -> Examples:
    return bundled_examples(base, entry)
