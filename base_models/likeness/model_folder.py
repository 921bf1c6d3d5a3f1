"""The folders of published vision models that an operator names: are they what they should be? Imports no torch.

Its one rule: how pictures are prepared is read from the model's own preprocessor_config.json, never assumed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ModelType = Literal["dinov2", "clip"]

# Pillow's numbers for its filters, as preprocessor_config.json has them.
_FILTERS: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))


class ModelFolderError(Exception):
    """The folder does not hold a model of the type that was asked for; the text says what is wrong with it."""


@dataclass(frozen=True)
class Preparation:
    """What is done to a square picture before a model sees it: sides in pixels, mean and std of RGB in [0, 1]."""

    resized: int
    cropped: int
    filter: Literal["bilinear", "bicubic"]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def read_model_folder(folder: Path, model_type: ModelType) -> Preparation:
    """Check that a local transformers folder holds a model of this type, and say how its pictures are prepared.

    Reads no weights. Raises ModelFolderError.
    """
    config = _json(folder, "config.json")
    if config.get("model_type") != model_type:
        raise ModelFolderError(f"{folder} holds a {config.get('model_type')!r}; needed is a {model_type!r}")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise ModelFolderError(f"{folder} has no {_WEIGHTS[0]}; other kinds of weight files are not read")
    if model_type == "clip" and not any(all((folder / name).is_file() for name in names) for names in _TOKENIZERS):
        raise ModelFolderError(f"{folder} has no tokenizer: neither tokenizer.json nor vocab.json and merges.txt")
    return _preparation(folder, _json(folder, "preprocessor_config.json"))


def _preparation(folder: Path, config: dict[str, Any]) -> Preparation:
    try:
        resized = _side(config["size"])
        preparation = Preparation(
            resized=resized,
            cropped=_side(config["crop_size"]) if config.get("do_center_crop", True) else resized,
            filter=_FILTERS[config.get("resample", 3)],
            mean=tuple(map(float, config["image_mean"])),
            std=tuple(map(float, config["image_std"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFolderError(f"{folder}/preprocessor_config.json says nothing usable of {error}") from error
    if not 0 < preparation.cropped <= preparation.resized or len(preparation.mean) != 3 or len(preparation.std) != 3:
        raise ModelFolderError(f"{folder}/preprocessor_config.json fits no square RGB picture: {preparation}")
    return preparation


def _side(size: Any) -> int:
    """A size as older and newer files say it: a number, its shortest edge, or height and width."""
    if isinstance(size, int):
        return size
    if "shortest_edge" in size:
        return int(size["shortest_edge"])
    if size["height"] != size["width"]:
        raise ValueError(f"a size that is not square: {size}")
    return int(size["height"])


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / name).read_text())
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{folder} is not a model's folder: {error}") from error
    if not isinstance(found, dict):
        raise ModelFolderError(f"{folder}/{name} is not a JSON object")
    return found
