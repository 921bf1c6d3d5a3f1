"""From sixteen pictures to a picture of the character: the bundled client, real services, a real S3 server, real ports.

The adapters that come out are held against plain diffusers, which knows nothing of this project.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image

import personae
from base_models.catalog import BUNDLED

pytestmark = pytest.mark.slow

PICTURES = BUNDLED["toon-64"] / "sets" / "micah-b" / "train"
SCENES = ("happy, pink background", "sad, teal background", "surprised, green background, close-up")
SEEDS = (11, 12, 13)
STEPS, GUIDANCE = 10, 3.0


@pytest.fixture(scope="module", params=["attention", "all"])
def adapter(client: personae.Client, request: pytest.FixtureRequest) -> personae.Adapter:
    """An adapter of enough steps to be seen, trained from a folder by name alone."""
    events: list[personae.TrainingEvent] = []
    training = client.train(PICTURES, name=request.param, targets=request.param, steps=30, batch_size=2)
    adapter = training.wait(on_event=events.append)
    stages = {event.stage for event in events if isinstance(event, personae.Progress)}
    assert {"stepping", "evaluating"} <= stages
    assert [event.evaluation for event in events if isinstance(event, personae.Evaluated)] == [adapter.evaluation]
    assert adapter.evaluation is not None
    assert adapter.evaluation.likeness is not None
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return adapter


@pytest.fixture(scope="module")
def pipeline() -> Any:
    pipeline = StableDiffusionPipeline.from_pretrained(BUNDLED["toon-64"], dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    return pipeline


def served(client: personae.Client, adapter: personae.Adapter) -> list[Image.Image]:
    """What InferenceService makes of the scenes."""
    images = client.generate(
        [adapter.prompt(scene) for scene in SCENES],
        adapter=adapter,
        seeds=[[seed] for seed in SEEDS],
        steps=STEPS,
        guidance_scale=GUIDANCE,
        scheduler="ddim",
    )
    return [image.picture() for image in sorted(images, key=lambda image: image.index)]


def plain(pipeline: Any, adapter: personae.Adapter, file: Path | None) -> list[Image.Image]:
    """What plain diffusers makes of the same, one image at a time."""
    if file is not None:
        pipeline.load_lora_weights(file)
    try:
        return [
            pipeline(
                adapter.prompt(scene),
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                generator=torch.Generator().manual_seed(seed),
            ).images[0]
            for scene, seed in zip(SCENES, SEEDS, strict=True)
        ]
    finally:
        pipeline.unload_lora_weights()


def equal_share(ours: list[Image.Image], theirs: list[Image.Image]) -> float:
    """Share of the colour values that differ by at most 1 of 255."""
    differences = [
        np.abs(np.asarray(our).astype(int) - np.asarray(their).astype(int))
        for our, their in zip(ours, theirs, strict=True)
    ]
    return float((np.stack(differences) <= 1).mean())


def test_plain_diffusers_makes_the_same_pictures_with_the_adapter_and_not_without_it(
    client: personae.Client, adapter: personae.Adapter, pipeline: Any, tmp_path: Path
) -> None:
    ours = served(client, adapter)
    file = tmp_path / "adapter.safetensors"
    client.download_adapter(adapter.name, file)
    assert equal_share(ours, plain(pipeline, adapter, file)) >= 0.999
    zeroed = tmp_path / "zeroed.safetensors"
    tensors = {name: torch.zeros_like(tensor) for name, tensor in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(tensors, zeroed)
    assert equal_share(ours, plain(pipeline, adapter, zeroed)) < 0.9
    assert equal_share(ours, plain(pipeline, adapter, None)) < 0.9


def test_plain_diffusers_loads_the_adapter_without_a_complaint(
    client: personae.Client, adapter: personae.Adapter, pipeline: Any, tmp_path: Path
) -> None:
    file = tmp_path / "adapter.safetensors"
    client.download_adapter(adapter.name, file)
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener = Listener(logging.WARNING)
    loggers = [logging.getLogger("diffusers"), logging.getLogger("peft")]
    for logger in loggers:
        logger.addHandler(listener)
    try:
        pipeline.load_lora_weights(file)
    finally:
        for logger in loggers:
            logger.removeHandler(listener)
        pipeline.unload_lora_weights()
    # diffusers says this of every adapter that leaves the text encoder alone, its own included.
    assert [text for text in said if not text.startswith("No LoRA keys associated to CLIPTextModel")] == []


def test_seeds_are_echoed_and_the_same_seed_gives_the_same_picture_in_any_company(
    client: personae.Client, adapter: personae.Adapter
) -> None:
    prompt = adapter.prompt(SCENES[0])
    together = list(client.generate([prompt], adapter=adapter, seeds=[[5, 6, 7]], steps=4))
    alone = list(client.generate([prompt], adapter=adapter, seeds=[[6]], steps=4))
    assert sorted(image.seed for image in together) == [5, 6, 7]
    (in_company,) = [image.picture() for image in together if image.seed == 6]
    assert equal_share([in_company], [alone[0].picture()]) >= 0.999


def test_what_exists_can_be_listed(client: personae.Client, adapter: personae.Adapter) -> None:
    assert adapter.name in [found.name for found in client.adapters()]
    assert adapter.training in [found.name for found in client.trainings()]
    assert client.get_adapter(adapter.name.partition("/versions/")[0]) == adapter


def test_bad_requests_leave_both_services_working(client: personae.Client, adapter: personae.Adapter) -> None:
    with pytest.raises(personae.InvalidRequest) as caught:
        list(client.generate(["word " * 200], width=63, steps=0))
    assert {violation.field for violation in caught.value.violations} == {"prompts[0].text", "width", "steps"}
    with pytest.raises(personae.NotFound):
        list(client.generate(["x"], adapter="projects/default/adapters/nobody"))
    with pytest.raises(personae.InvalidRequest):
        client.train(PICTURES, name="Not An Id")
    assert len(list(client.generate([adapter.prompt()], adapter=adapter, steps=1))) == 1
