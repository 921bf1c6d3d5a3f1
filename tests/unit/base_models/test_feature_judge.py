"""The judge of published networks, on small random copies: what it sees, what it refuses, what it leaves out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPModel, Dinov2Model
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from base_models.catalog import BUNDLED, read_allow_list
from base_models.likeness.choice import judge_for
from base_models.likeness.feature_judge import SCENES, FeatureJudge, prepared
from base_models.likeness.model_folder import ModelFolderError, read_model_folder
from tests.unit.base_models.small_vision_models import (
    CLIP_PREPARATION,
    DINOV2_PREPARATION,
    save_clip,
    save_dinov2,
)

CPU = torch.device("cpu")
FILES = sorted((BUNDLED["toon-64"] / "sets" / "micah-b" / "train").glob("*.png"))[:12]


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dinov2(tmp_path_factory.mktemp("dinov2"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [Image.open(path).convert("RGB").resize((96, 96), Image.Resampling.LANCZOS) for path in FILES]


def pixels(pictures: list[Image.Image]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 127.5 - 1 for picture in pictures])


@pytest.mark.parametrize(
    ("processor", "values", "kind"),
    [(BitImageProcessorPil, DINOV2_PREPARATION, "dinov2"), (CLIPImageProcessorPil, CLIP_PREPARATION, "clip")],
)
def test_pictures_are_prepared_as_the_models_own_processor_does(
    processor: type, values: dict[str, object], kind: str, request: pytest.FixtureRequest, pictures: list[Image.Image]
) -> None:
    ours = prepared(pixels(pictures), read_model_folder(request.getfixturevalue(kind), kind))  # type: ignore[arg-type]
    theirs = processor(**values)(pictures, return_tensors="pt").pixel_values
    assert ours.shape == theirs.shape
    # Pillow rounds and cuts to bytes after each of its two passes, which shows at sharp edges.
    step = 1 / 255 / 0.224
    assert (ours - theirs).abs().mean() < step / 2
    assert (ours - theirs).abs().max() < 5 * step


def test_identity_is_the_unit_class_token_of_dinov2(dinov2: Path, pictures: list[Image.Image]) -> None:
    features = FeatureJudge(dinov2, None, CPU).identity(pixels(pictures), pixels(pictures))
    processed = BitImageProcessorPil(**DINOV2_PREPARATION)(pictures, return_tensors="pt")
    with torch.no_grad():
        plain = Dinov2Model.from_pretrained(dinov2).eval()(**processed).pooler_output
    assert features is not None
    assert torch.allclose(features.norm(dim=1), torch.ones(len(pictures)))
    assert torch.nn.functional.cosine_similarity(features, plain).min() > 0.999


def test_obedience_is_the_share_of_pictures_nearest_to_their_own_scene(clip: Path, pictures: list[Image.Image]) -> None:
    judge = FeatureJudge(None, clip, CPU)
    model = CLIPModel.from_pretrained(clip).eval()
    processed = CLIPImageProcessorPil(**CLIP_PREPARATION)(pictures, return_tensors="pt")
    tokens = AutoTokenizer.from_pretrained(clip)(
        [f"a picture{scene}" for scene in SCENES], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        best = model(**tokens, **processed).logits_per_image.argmax(dim=1).tolist()
    nearest = [SCENES[index] for index in best]
    others = [SCENES[(index + 1) % len(SCENES)] for index in best]
    assert judge.obedience(pixels(pictures), nearest) == 1.0
    assert judge.obedience(pixels(pictures), others) == 0.0
    half = nearest[:6] + others[6:]
    assert judge.obedience(pixels(pictures), half) == 0.5
    assert judge.obedience(pixels(pictures) * float("nan"), half) is None


def test_what_is_missing_tells_nothing_and_is_not_in_the_name(dinov2: Path, clip: Path) -> None:
    some = torch.zeros(2, 3, 64, 64)
    only_clip, only_dinov2 = FeatureJudge(None, clip, CPU), FeatureJudge(dinov2, None, CPU)
    assert (only_clip.identity(some, some), only_clip.appearance(some)) == (None, None)
    assert only_dinov2.obedience(some, SCENES[:2]) is None
    names = (only_dinov2.name, only_clip.name, FeatureJudge(dinov2, clip, CPU).name)
    assert names == ("dinov2-32/14", "clip-32/8", "dinov2-32/14+clip-32/8")


def test_there_are_a_dozen_scenes_for_persons_and_things_alike() -> None:
    assert len(set(SCENES)) == 12
    assert all(scene.startswith(", ") for scene in SCENES)


def test_a_base_model_without_a_judge_of_its_own_gets_the_operators_or_none(
    dinov2: Path, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(BUNDLED["toon-64"])
    entry = read_allow_list([f"mine={tmp_path / 'link'}"])["mine"]
    assert entry.judge is None
    assert judge_for(entry, CPU, None, None) is None
    judge = judge_for(entry, CPU, None, clip)
    assert judge is not None
    assert judge.name == "clip-32/8"


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("config.json", lambda text: text.replace('"dinov2"', '"vit"'), "holds a 'vit'; needed is a 'dinov2'"),
        ("config.json", lambda text: text[:-5], "not a model's folder"),
        ("config.json", lambda text: "[]", "not a JSON object"),
        ("preprocessor_config.json", lambda text: "{}", "size"),
        ("preprocessor_config.json", lambda text: json.dumps(json.loads(text) | {"image_mean": [0.5]}), "RGB"),
        ("preprocessor_config.json", lambda text: json.dumps(json.loads(text) | {"crop_size": 64}), "no square"),
        ("preprocessor_config.json", lambda text: json.dumps(json.loads(text) | {"resample": 1}), "preprocessor"),
        (
            "preprocessor_config.json",
            lambda text: json.dumps(json.loads(text) | {"size": {"height": 32, "width": 48}}),
            "not square",
        ),
    ],
)
def test_a_folder_of_something_else_is_refused_by_what_is_wrong(
    tmp_path: Path, name: str, change: object, words: str
) -> None:
    folder = save_dinov2(tmp_path / "dinov2")
    file = folder / name
    file.write_text(change(file.read_text()))  # type: ignore[operator]
    with pytest.raises(ModelFolderError, match=words):
        read_model_folder(folder, "dinov2")


def test_a_folder_without_weights_or_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="not a model's folder"):
        read_model_folder(tmp_path / "nowhere", "clip")
    folder = save_clip(tmp_path / "clip")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFolderError, match="no tokenizer"):
        read_model_folder(folder, "clip")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelFolderError, match=r"no model\.safetensors"):
        read_model_folder(folder, "clip")
