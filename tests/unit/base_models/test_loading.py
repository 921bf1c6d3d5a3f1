"""Loading a base model: in the dtype asked for, in the memory that its weights take."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from base_models.catalog import BaseModelEntry, describe
from base_models.loading import load_base_model
from tests.benchmarks.random_base_model import write_medium_sdxl
from tests.process_memory import peak_growth_bytes

CPU = torch.device("cpu")
PARTS = ("unet", "text_encoder", "text_encoder_2", "vae")


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> BaseModelEntry:
    """Of 409 MB in bfloat16, nearly all of it in linear layers, as in SDXL."""
    folder: Path = tmp_path_factory.mktemp("medium")
    write_medium_sdxl(folder, torch.bfloat16)
    return describe("medium", folder)


def touched(tensors: Any) -> float:
    """The sum of all weights: whoever has it has read every page."""
    return sum(tensor.detach().sum(dtype=torch.float32).item() for tensor in tensors)


def test_weights_of_the_dtype_of_their_files_are_in_memory_once(medium: BaseModelEntry) -> None:
    kept: list[Any] = []

    def read() -> None:
        for path in sorted(medium.folder.rglob("*.safetensors")):
            kept.append(safetensors.torch.load_file(path))
            touched(kept[-1].values())

    def load() -> None:
        base: Any = load_base_model(medium, CPU, torch.bfloat16)
        kept.append(base)
        touched(parameter for part in PARTS for parameter in base.pipeline.components[part].parameters())

    once = peak_growth_bytes(read)
    assert once > 100_000_000
    # Beside one copy: the modules, the autoencoder in float32, and convolutions in another order.
    assert peak_growth_bytes(load) < 1.4 * once


def test_all_but_the_autoencoder_is_of_the_dtype_asked_for(tiny_sdxl: BaseModelEntry) -> None:
    base: Any = load_base_model(tiny_sdxl, CPU, torch.bfloat16)
    dtypes = {part: {tensor.dtype for tensor in base.pipeline.components[part].parameters()} for part in PARTS}
    assert dtypes == {part: {torch.bfloat16} for part in PARTS} | {"vae": {torch.float32}}
    stored = safetensors.torch.load_file(tiny_sdxl.folder / "vae" / "diffusion_pytorch_model.safetensors")
    held = base.pipeline.vae.state_dict()
    # Not by way of bfloat16, which would leave eight bits of each.
    assert all(torch.equal(held[name], tensor) for name, tensor in stored.items())
