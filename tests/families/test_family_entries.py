"""Every family's folder, before anything of it is loaded: whole or not, what it is called, how long a prompt may be."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from base_models.adapters.layer_shapes import read_layer_shapes
from base_models.catalog import BaseModelEntry
from base_models.examination import examine
from tests.families.family_case import FamilyCase


def test_a_whole_folder_is_found_whole_and_each_lost_part_is_named(
    entry: BaseModelEntry, case: FamilyCase, tmp_path: Path
) -> None:
    whole = examine(f"{case.name}={entry.folder}")
    assert (whole["problem"], whole["pipeline"]) == ("", entry.pipeline)
    copied = tmp_path / "model"
    shutil.copytree(entry.folder, copied)
    index = json.loads((copied / "model_index.json").read_text())
    parts = [part for part in index if sorted((copied / part).glob("*.safetensors"))]
    assert {entry.traits.denoiser, "vae", "text_encoder"} <= set(parts)
    assert whole["size_bytes"] == sum(path.stat().st_size for path in copied.rglob("*.safetensors"))
    for part in parts:
        for weights in (copied / part).glob("*.safetensors"):
            weights.unlink()
    problem = examine(f"{case.name}={copied}")["problem"]
    assert isinstance(problem, str)
    assert problem.startswith("no safetensors weights are in ")
    assert all(part in problem for part in parts)


def test_a_small_copy_is_called_by_its_own_name(entry: BaseModelEntry, case: FamilyCase) -> None:
    architecture = entry.architecture()
    assert (architecture.name, architecture.base_model_version) == (case.name, case.name)


def test_layers_read_from_files_are_those_of_the_loaded_modules(entry: BaseModelEntry, base: Any) -> None:
    loaded = {
        f"{part}.{name}": tuple(layer.weight.shape)
        for part, module in base.adaptable.items()
        for name, layer in module.named_modules()
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
    }
    assert read_layer_shapes(entry) == loaded


def test_every_target_names_layers_of_the_denoiser(entry: BaseModelEntry, base: Any) -> None:
    linear = {
        name for name, layer in base.denoiser.named_modules() if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
    }
    taken_before: set[str] = set()
    for targets, endings in entry.traits.targets.items():
        missing = [ending for ending in endings if not any(f".{layer}".endswith(f".{ending}") for layer in linear)]
        # A small copy has fewer blocks than endings that name theirs by number.
        assert all(re.search(r"(^|\.)\d+\.", ending) for ending in missing), (targets, missing)
        taken = {layer for layer in linear if f".{layer}".endswith(tuple(f".{ending}" for ending in endings))}
        assert taken_before <= taken
        taken_before = taken


@pytest.mark.parametrize("missing", ["config", "tokenizer"])
def test_a_folder_without_its_settings_is_refused_by_name(
    entry: BaseModelEntry, case: FamilyCase, tmp_path: Path, missing: str
) -> None:
    copied = tmp_path / "model"
    shutil.copytree(entry.folder, copied, ignore=shutil.ignore_patterns("*.safetensors"))
    lost = {
        "config": copied / entry.traits.denoiser / "config.json",
        "tokenizer": copied / entry.tokenizer_folders[0].name / "tokenizer_config.json",
    }[missing]
    lost.unlink()
    assert lost.name in str(examine(f"{case.name}={copied}")["problem"])
