"""The real bundled base model, loaded once for all tests that need it."""

from collections.abc import Iterator
from typing import Any

import pytest

from base_models.catalog import BaseModelEntry, read_allow_list


@pytest.fixture(scope="session")
def toon() -> BaseModelEntry:
    return read_allow_list(["toon-64"])["toon-64"]


@pytest.fixture(scope="session")
def engine(toon: BaseModelEntry) -> Iterator[Any]:
    # About ten seconds of imports, so only for the tests that ask for it.
    import torch

    from base_models.loading import load_base_model
    from inference_service.denoising.step_engine import StepEngine

    base = load_base_model(toon, torch.device("cpu"))
    running = StepEngine(toon, base, batch_size=3, slot_rank=4, slot_bytes=2**24)
    yield running
    running.close()


@pytest.fixture(scope="session")
def plain_pipeline(toon: BaseModelEntry) -> Any:
    """Plain diffusers, which the service never touches."""
    import torch

    from base_models.pipelines import load_pipeline

    return load_pipeline(toon, torch.device("cpu"), torch.float32)
