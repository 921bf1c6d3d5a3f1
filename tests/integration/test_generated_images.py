"""The inference service as a process on a real S3 server: what it checks, leaves in the bucket and finds again."""

import hashlib
import io
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import personae
from base_models.catalog import read_allow_list
from base_models.families.stable_diffusion import StableDiffusion
from tests.kept_spans import collecting
from tests.metric_values import values
from tests.real_store import RealStore
from tests.service_process import running_service, service_environment
from tests.unit.inference.small_safety_checker import save_safety_checker

PROMPT = "a character, happy"


def _drawn(seeds: list[int]) -> list[NDArray[np.uint8]]:
    """The pixels_HWC that the base model draws of the prompt with its own settings."""
    entry = read_allow_list(["toon-64"])["toon-64"]
    pixels_BCHW = StableDiffusion(entry, torch.device("cpu")).generate([PROMPT] * len(seeds), seeds, 64)
    levels_BHWC = ((pixels_BCHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).movedim(1, -1)
    return [np.ascontiguousarray(levels_HWC) for levels_HWC in levels_BHWC.numpy()]


@pytest.mark.slow
def test_images_in_the_bucket_are_found_by_hash_and_a_refused_one_is_nowhere(
    real_store: RealStore, tmp_path: Path
) -> None:
    checker = save_safety_checker(tmp_path / "checker", *_drawn([1, 2, 3]))
    settings = {"PERSONAE_INFERENCE_CHECKER": str(checker)}
    before = set(real_store.store.keys("projects/default/"))
    with (
        collecting() as collector,
        running_service(
            "inference_service",
            service_environment(real_store, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, **settings),
            tmp_path / "inference.log",
        ) as inference,
        personae.Client(inference=inference.address) as client,
    ):
        images = {image.seed: image for image in client.generate(PROMPT, seeds=[1, 2, 3], delivery="bucket")}
        assert {seed: image.filtered for seed, image in images.items()} == {1: True, 2: False, 3: False}
        assert (images[1].uri, images[1].content) == ("", b"")
        for image in (images[2], images[3]):
            file = real_store.store.get(image.uri.removeprefix("s3://personae/")).body
            assert image.digest == hashlib.sha256(file).hexdigest()
            assert Image.open(io.BytesIO(file)).info["prompt"] == PROMPT
            assert image.uri.split("/")[-2] == client.look_up_image(file).generation
        # Inline, in the same company, it is the same file, and still the first generation's.
        again = {image.seed: image for image in client.generate(PROMPT, seeds=[1, 2, 3])}[2]
        assert hashlib.sha256(again.content).hexdigest() == images[2].digest
        assert client.look_up_image(again) == client.look_up_image(images[2])
        # What operators see of it, of a real engine.
        with urllib.request.urlopen(f"http://{inference.metrics_address}/metrics", timeout=60) as answer:
            counted = values(answer.read().decode())
        assert counted['personae_inference_images_total{outcome="made"}'] == 4
        assert counted['personae_inference_images_total{outcome="filtered"}'] == 2
        steps = counted['personae_inference_steps_total{base_model="toon-64"}']
        assert 0 < steps < counted['personae_inference_step_rows_total{base_model="toon-64"}']
        assert counted['personae_inference_step_seconds_total{base_model="toon-64"}'] > 0
        assert inference.stop() == 0
        assert {"encode prompts", "denoise", "finish image", "store put"} <= {
            span.name for _, span in collector.received
        }
    # Two files and two entries; of the refused image there is nothing.
    assert len(set(real_store.store.keys("projects/default/")) - before) == 4
