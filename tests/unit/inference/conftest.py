"""What the tests of the inference service share: complete requests, and the real bundled base model, loaded once."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from base_models.catalog import BaseModelEntry, read_allow_list
from inference_service.generation import GenerationRequest, Prompt

TEXT = "a character with a red hat"


@pytest.fixture(scope="session")
def toon() -> BaseModelEntry:
    return read_allow_list(["toon-64"])["toon-64"]


@pytest.fixture(scope="session")
def engine(toon: BaseModelEntry) -> Iterator[Any]:
    # About ten seconds of imports, so only for the tests that ask for it.
    from inference_service.diffusers_engine import DiffusersEngine

    running = DiffusersEngine(toon, batch_size=3)
    yield running
    running.close()


@pytest.fixture(scope="session")
def plain_pipeline(toon: BaseModelEntry) -> Any:
    """Plain diffusers, which the service never touches."""
    import torch

    from base_models.stable_diffusion import load_pipeline

    return load_pipeline(toon, torch.device("cpu"), torch.float32)


@pytest.fixture
def request_of() -> Callable[..., GenerationRequest]:
    """Builds a request for some seeds of one prompt, quick to compute."""

    def build(*seeds: int, **changes: Any) -> GenerationRequest:
        values: dict[str, Any] = {
            "base_model": "toon-64",
            "adapters": (),
            "prompts": (Prompt(TEXT, seeds),),
            "images_per_prompt": 1,
            "negative_prompt": "",
            "guidance_scale": 3.0,
            "steps": 4,
            "scheduler": "ddim",
            "width": 64,
            "height": 64,
            "file_format": "png",
        }
        return GenerationRequest(**(values | changes))

    return build
