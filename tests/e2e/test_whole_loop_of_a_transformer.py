"""The same for a base model of another family, as an operator allows it: FLUX.1's classes, small, with random weights.

It never saw a picture, so nobody is recognised here: what is held is that both services, the bucket and the exports
treat it like any other, and that plain diffusers draws the same.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

import personae
from base_models.catalog import BUNDLED
from personae.cli import local_stack
from tests.families.flux import write_tiny_flux

pytestmark = pytest.mark.slow

PICTURES = BUNDLED["toon-64"] / "sets" / "micah-b" / "train"
SIZE = 512
SCENE = "happy, blue background"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("flux")
    write_tiny_flux(made)
    return made


@pytest.fixture(scope="module")
def client(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[personae.Client]:
    data = tmp_path_factory.mktemp("stack")
    addresses, allowed = local_stack.Addresses(), f"toon-64,flux={folder}"
    with (
        local_stack.running(data / "data", data / "logs", addresses, {}, allowed) as stack,
        personae.Client(stack.trainer, stack.inference) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def adapter(client: personae.Client) -> personae.Adapter:
    training = client.train(
        PICTURES, name="mia", base_model="flux", resolution=SIZE, steps=6, learning_rate=0.05, sample_every=0
    )
    return training.wait()


def drawn(client: personae.Client, adapter: personae.Adapter | None, **options: Any) -> Any:
    prompt = adapter.prompt(SCENE) if adapter else SCENE
    chosen: dict[str, Any] = {"adapter": adapter} if adapter else {"base_model": "flux"}
    size = {"width": SIZE, "height": SIZE, "steps": 4}
    (image,) = client.generate([prompt], seeds=[[7]], **chosen, **size, **options)
    return np.asarray(image.picture()).astype(int)


def test_an_adapter_of_a_flux_is_trained_served_exported_and_the_same_in_plain_diffusers(
    client: personae.Client, adapter: personae.Adapter, folder: Path, tmp_path: Path
) -> None:
    assert adapter.base_model == "flux"
    served_HWC = drawn(client, adapter, guidance_scale=3.5)
    file = client.export_adapter(adapter, "diffusers", tmp_path)
    pipeline: Any = FluxPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def plain() -> Any:
        generator = torch.Generator().manual_seed(7)
        picture = pipeline(
            adapter.prompt(SCENE),
            width=SIZE,
            height=SIZE,
            num_inference_steps=4,
            guidance_scale=3.5,
            generator=generator,
        ).images[0]
        return np.asarray(picture).astype(int)

    untuned_HWC = plain()
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    assert (np.abs(served_HWC - plain()) <= 1).mean() >= 0.999
    assert (np.abs(untuned_HWC - served_HWC) > 1).mean() > 0.01


def test_what_a_flux_cannot_do_is_said_at_once_and_the_next_request_works(
    client: personae.Client, adapter: personae.Adapter
) -> None:
    with pytest.raises(personae.InvalidRequest) as refused:
        drawn(client, adapter, scheduler="ddim", negative_prompt="blue")
    assert {violation.field for violation in refused.value.violations} == {"scheduler", "negative_prompt"}
    assert drawn(client, None).shape == (SIZE, SIZE, 3)
