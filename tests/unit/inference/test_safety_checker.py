"""The checker that Stable Diffusion came with, on a small random copy of the real class."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from inference_service.__main__ import load_checker
from inference_service.safety_checker import CheckerUnusable, SafetyChecker
from personae.v1 import inference_pb2 as pb
from service_kit.serving import StartError
from tests.unit.inference.fake_serving import FakeServing, ask, drawn, serve
from tests.unit.inference.small_safety_checker import save_safety_checker

REFUSED, ALLOWED = drawn(7, 64, 96), np.full((64, 64, 3), 200, np.uint8)
OTHERS = (drawn(6, 64, 96), drawn(8, 64, 96))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_safety_checker(tmp_path_factory.mktemp("checker"), REFUSED, ALLOWED, *OTHERS)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """Of the folder, to be spoiled."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_its_verdict_is_used_and_its_black_pictures_are_not(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures = [ALLOWED.copy(), REFUSED.copy(), OTHERS[0].copy()]
    with caplog.at_level(logging.INFO):
        assert SafetyChecker(folder).refuses(pictures) == [False, True, False]
    for picture, before in zip(pictures, (ALLOWED, REFUSED, OTHERS[0]), strict=True):
        assert np.array_equal(picture, before)
    # It would log that a black image is returned.
    assert caplog.text == ""


def test_a_refused_image_is_filtered_and_the_others_come(folder: Path, tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        messages = await serving.generate(ask(6, 7, 8, width=96, height=64))
        images = {message.image.seed: message.image for message in messages if message.HasField("image")}
        assert images[7] == pb.GenerateResponse.Image(
            index=1,
            seed=7,
            finish_reason=pb.GenerateResponse.Image.FINISH_REASON_FILTERED,
            width=96,
            height=64,
        )
        for seed in (6, 8):
            assert images[seed].finish_reason == pb.GenerateResponse.Image.FINISH_REASON_COMPLETED
            assert images[seed].content
        assert messages[-1].done.image_count == 3
        # Of the refused one nothing is kept.
        assert len(list(serving.store.keys("projects/default/images/"))) == 2

    serve(tmp_path, scenario, checker=SafetyChecker(folder))


def test_a_folder_that_holds_no_checker_stops_the_start_and_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=f"PERSONAE_INFERENCE_CHECKER={tmp_path}: there is no model.safetensors"):
        load_checker(tmp_path)


@pytest.mark.parametrize("lacking", ["concept_embeds_weights", "visual_projection.weight"])
def test_weights_that_are_missing_are_not_drawn_at_random(copy: Path, lacking: str) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights[lacking]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckerUnusable, match=f"lack {lacking}"):
        SafetyChecker(copy)


def test_thresholds_that_compare_to_nothing_are_refused(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["concept_embeds_weights"][3] = torch.nan
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckerUnusable, match="not finite"):
        SafetyChecker(copy)


@pytest.mark.parametrize("spoil", ["another model", "no preparation", "torn"])
def test_what_is_not_a_whole_checker_is_refused_in_words(copy: Path, spoil: str) -> None:
    if spoil == "another model":
        (copy / "config.json").write_text('{"architectures": ["CLIPModel"], "model_type": "clip"}')
    elif spoil == "no preparation":
        (copy / "preprocessor_config.json").unlink()
    else:
        (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(CheckerUnusable):
        SafetyChecker(copy)
