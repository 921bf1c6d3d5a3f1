"""Which quantised folders are taken, and what is said of those that are not. Needs no torch."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from base_models.catalog import BUNDLED, CatalogError, describe
from base_models.weights.quantisation import is_quantised

INT8 = {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_version": 2}}}
INT4 = {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "_version": 2}}}


def folder_with(tmp_path: Path, **quantised: Any) -> Path:
    """The bundled model's configurations, some of which say how weights were quantised."""
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED["toon-64"], folder, ignore=shutil.ignore_patterns("sets", "*.safetensors"))
    for part, quantisation in quantised.items():
        path = folder / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": quantisation}))
    return folder


def test_plain_weights_need_nothing(tmp_path: Path) -> None:
    assert not is_quantised(folder_with(tmp_path), "unet")


def test_a_denoiser_of_a_known_kind_is_taken(tmp_path: Path) -> None:
    pytest.importorskip("torchao", reason="dependency group quantised is not installed")
    assert is_quantised(folder_with(tmp_path, unet=INT8), "unet")
    assert describe("x", tmp_path / "model").is_quantised


@pytest.mark.parametrize(
    ("quantised", "said"),
    [
        ({"unet": INT4}, "unet are quantised by torchao \\(Int4WeightOnlyConfig\\)"),
        ({"unet": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "by bitsandbytes"),
        ({"text_encoder": INT8}, "text_encoder are quantised by torchao"),
        ({"unet": "nonsense"}, "a library that it does not name"),
        ({"unet": INT4, "vae": INT8}, "unet are .*; the weights of vae are"),
    ],
)
def test_all_that_cannot_be_used_is_named_with_what_can(tmp_path: Path, quantised: dict[str, Any], said: str) -> None:
    with pytest.raises(CatalogError, match=f"{said}.*Int8WeightOnlyConfig or Float8WeightOnlyConfig"):
        describe("x", folder_with(tmp_path, **quantised))
