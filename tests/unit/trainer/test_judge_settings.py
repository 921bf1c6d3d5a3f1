"""The folders of the models that judge: read by the service and by its workers, refused where they hold another."""

import json
from pathlib import Path

import pytest

from service_kit.settings import SettingsError, read_settings
from trainer_service.settings import TrainerSettings, WorkerSettings

PREPARATION = {"size": 224, "crop_size": 224, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
BOTH = pytest.mark.parametrize("kind", [TrainerSettings, WorkerSettings])


def model_folder(folder: Path, model_type: str) -> Path:
    """What a start looks at; weights are not read before there is something to judge."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPARATION))
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).write_bytes(b"")
    return folder


@BOTH
def test_without_folders_nothing_judges(kind: type) -> None:
    judges = read_settings(kind, {"PERSONAE_CLIP_FOLDER": ""}, ()).judges  # type: ignore[attr-defined]
    assert (judges.dinov2_folder, judges.clip_folder) == (None, None)


@BOTH
def test_folders_of_the_right_models_are_taken(kind: type, tmp_path: Path) -> None:
    dinov2, clip = model_folder(tmp_path / "a", "dinov2"), model_folder(tmp_path / "b", "clip")
    environment = {"PERSONAE_DINOV2_FOLDER": str(dinov2), "PERSONAE_CLIP_FOLDER": str(clip)}
    judges = read_settings(kind, environment, ()).judges  # type: ignore[attr-defined]
    assert (judges.dinov2_folder, judges.clip_folder) == (dinov2, clip)


@BOTH
def test_missing_and_exchanged_folders_are_all_named_with_their_variables(kind: type, tmp_path: Path) -> None:
    clip = model_folder(tmp_path / "clip", "clip")
    environment = {"PERSONAE_DINOV2_FOLDER": str(clip), "PERSONAE_CLIP_FOLDER": str(tmp_path / "nowhere")}
    with pytest.raises(SettingsError) as caught:
        read_settings(kind, environment, ())
    said = str(caught.value)
    assert "PERSONAE_DINOV2_FOLDER: Value error, " + str(clip) + " holds a 'clip'; needed is a 'dinov2'" in said
    assert "PERSONAE_CLIP_FOLDER" in said
    assert "not a model's folder" in said
