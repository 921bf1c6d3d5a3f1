"""Every family's small copy: as an entry of the allow-list, loaded by us, and loaded by plain diffusers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from base_models.catalog import BaseModelEntry, describe
from base_models.loading import load_base_model
from tests.families.family_case import FamilyCase
from tests.families.flux import FluxCase
from tests.families.flux_2 import Flux2KleinCase
from tests.families.qwen_image import QwenImageCase
from tests.families.stable_diffusion_3 import StableDiffusion3Case
from tests.families.unets import StableDiffusionCase, StableDiffusionXLCase
from tests.families.z_image import ZImageCase
from tests.unit.inference.step_rows import StepRows

CASES: list[FamilyCase] = [
    StableDiffusionXLCase(),
    StableDiffusion3Case("stable-diffusion-3.5-medium"),
    FluxCase(is_dev=True),
    Flux2KleinCase(is_distilled=True),
    ZImageCase(),
    QwenImageCase(),
]
# What differs from the others of its family in little, and Stable Diffusion 1, of which toon-64 is one.
VARIANTS: list[FamilyCase] = [
    StableDiffusionCase(predicts_v=False),
    StableDiffusionCase(predicts_v=True),
    StableDiffusion3Case("stable-diffusion-3.5-large"),
    StableDiffusion3Case("stable-diffusion-3-without-t5"),
    FluxCase(is_dev=False),
    Flux2KleinCase(is_distilled=False),
]
_ALL = [*CASES, *(pytest.param(variant, marks=pytest.mark.slow) for variant in VARIANTS)]


@pytest.fixture(scope="session", params=_ALL, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> FamilyCase:
    """A family."""
    found: FamilyCase = request.param
    return found


@pytest.fixture(scope="session")
def entry(case: FamilyCase, tmp_path_factory: pytest.TempPathFactory) -> BaseModelEntry:
    """Its small copy."""
    folder: Path = tmp_path_factory.mktemp(case.name)
    case.write(folder)
    return describe(case.name, folder)


@pytest.fixture(scope="session")
def base(entry: BaseModelEntry) -> Any:
    """As the loop and the engine have it."""
    return load_base_model(entry, torch.device("cpu"))


@pytest.fixture(scope="session")
def steps(entry: BaseModelEntry) -> Iterator[StepRows]:
    """The engine's parts around a base model of their own, whose layers they prepare for good."""
    rows = StepRows(load_base_model(entry, torch.device("cpu")))
    yield rows
    rows.close()


@pytest.fixture
def plain(case: FamilyCase, entry: BaseModelEntry) -> Any:
    """The pipeline as anybody loads it: a new one every time, since adapters leave something behind."""
    without = {**entry.traits.without, **case.without}
    pipeline = getattr(diffusers, entry.pipeline).from_pretrained(entry.folder, dtype=torch.float32, **without)
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False)
    return pipeline
