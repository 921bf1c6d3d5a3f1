"""Files that diffusers and PEFT themselves write, and our own exports, imported again: the very tensors."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

from base_models.adapters.adapter_export import KeyNames, renamed, stored_tensors, write_safetensors
from base_models.adapters.adapter_file import read_adapter
from base_models.adapters.adapter_import import import_adapter
from base_models.adapters.layer_shapes import read_layer_shapes
from base_models.catalog import BaseModelEntry, read_allow_list
from base_models.pipelines import adaptable_modules, load_pipeline
from tests.random_adapter import ALL, ATTENTION, TEXT_ATTENTION, random_adapter

Modules = dict[str, Any]
Tensors = dict[str, torch.Tensor]

KINDS: dict[str, dict[str, Any]] = {
    "attention": {"unet": ATTENTION},
    "all": {"unet": ALL},
    "with-text-encoders": {"unet": ATTENTION, "text_encoder": TEXT_ATTENTION, "text_encoder_2": TEXT_ATTENTION},
    "mlp": {"text_encoder": ["fc1", "fc2"]},
}


@pytest.fixture(scope="module", params=["toon-64", "sdxl"])
def entry(request: pytest.FixtureRequest, tiny_sdxl: BaseModelEntry) -> BaseModelEntry:
    return read_allow_list(["toon-64"])["toon-64"] if request.param == "toon-64" else tiny_sdxl


@pytest.fixture(scope="module")
def modules(entry: BaseModelEntry) -> Modules:
    return adaptable_modules(load_pipeline(entry, torch.device("cpu"), torch.float32))


def adapter(modules: Modules, kind: str, is_dora: bool = False) -> bytes:
    targets = {part: names for part, names in KINDS[kind].items() if part in modules}
    return random_adapter(modules, targets, seed=1, is_dora=is_dora)


def imported(entry: BaseModelEntry, modules: Modules, body: bytes) -> Tensors:
    """As inference reads it."""
    return read_adapter(import_adapter(body, read_layer_shapes(entry), entry.pipeline).body, modules)


def assert_same(found: Tensors, wanted: Tensors) -> None:
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_layers_read_from_files_are_those_of_the_loaded_modules(entry: BaseModelEntry, modules: Modules) -> None:
    loaded = {
        f"{part}.{name}": tuple(layer.weight.shape)
        for part, module in modules.items()
        for name, layer in module.named_modules()
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
    }
    assert read_layer_shapes(entry) == loaded


@pytest.mark.parametrize("key_names", ["diffusers", "kohya"])
@pytest.mark.parametrize(("kind", "is_dora"), [*((kind, False) for kind in KINDS), ("all", True)])
def test_an_export_imported_again_is_the_adapter(
    entry: BaseModelEntry, modules: Modules, kind: str, key_names: KeyNames, is_dora: bool
) -> None:
    body = adapter(modules, kind, is_dora)
    exported = write_safetensors(renamed(stored_tensors(body), key_names, entry.pipeline), {"modelspec.title": "x"})
    assert_same(imported(entry, modules, exported), read_adapter(body, modules))


@pytest.mark.parametrize("key_names", ["diffusers", "kohya"])
def test_every_layer_of_the_base_model_has_names_of_its_own(
    entry: BaseModelEntry, modules: Modules, key_names: KeyNames
) -> None:
    tensors, number = {}, 1.0
    for layer, shape in read_layer_shapes(entry).items():
        # What diffusers calls it is not settled; no tool is known to train it.
        if layer != "text_encoder_2.text_projection":
            tensors[f"{layer}.lora_A.weight"] = torch.full((1, *shape[1:]), number := number + 1e-3)
            tensors[f"{layer}.lora_B.weight"] = torch.full((shape[0], 1, *(1 for _ in shape[2:])), 1e-3)
    stored = stored_tensors(safetensors.torch.save(tensors))
    exported = write_safetensors(renamed(stored, key_names, entry.pipeline), {})
    assert_same(imported(entry, modules, exported), tensors)


def test_what_diffusers_saves_is_read(entry: BaseModelEntry, modules: Modules, tmp_path: Path) -> None:
    """As its training scripts do: `save_lora_weights` of converted PEFT states."""
    own = read_adapter(adapter(modules, "with-text-encoders"), modules)
    own = {name: tensor for name, tensor in own.items() if not name.startswith("text_encoder_2.")}
    states = {
        part: convert_state_dict_to_diffusers(
            {name.removeprefix(f"{part}."): tensor for name, tensor in own.items() if name.startswith(f"{part}.")}
        )
        for part in ("unet", "text_encoder")
    }
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=states["unet"],
        text_encoder_lora_layers=states["text_encoder"],
        unet_lora_adapter_metadata={"r": 4, "lora_alpha": 4, "init_lora_weights": "pissa"},
    )
    body = (tmp_path / "pytorch_lora_weights.safetensors").read_bytes()
    assert b"pissa" in body
    assert_same(imported(entry, modules, body), own)


def test_what_diffusers_converts_for_kohya_is_read(entry: BaseModelEntry, modules: Modules) -> None:
    """As its training scripts do beside: names of Kohya's with whole numbers as alphas."""
    own = read_adapter(adapter(modules, "with-text-encoders"), modules)
    body = safetensors.torch.save(convert_state_dict_to_kohya(own))
    assert any(name.endswith(".alpha") and place.dtype == "I64" for name, place in stored_tensors(body).items())
    assert_same(imported(entry, modules, body), own)


def test_what_peft_saves_is_read(entry: BaseModelEntry, modules: Modules, tmp_path: Path) -> None:
    own = read_adapter(adapter(modules, "all"), modules)
    model = get_peft_model(copy.deepcopy(modules["unet"]), LoraConfig(r=4, lora_alpha=4, target_modules=ALL))
    state = {f"base_model.model.{name.removeprefix('unet.')}": tensor for name, tensor in own.items()}
    set_peft_model_state_dict(model, state)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 4
    assert_same(imported(entry, modules, (tmp_path / "adapter_model.safetensors").read_bytes()), own)


def test_a_text_encoder_that_was_saved_by_an_older_release_has_the_same_layers(tmp_path: Path) -> None:
    """Published files say `text_model.`, and some hold positions."""
    entry = read_allow_list(["toon-64"])["toon-64"]
    for part in ("unet", "text_encoder"):
        (tmp_path / part).mkdir()
        for path in (entry.folder / part).glob("*.safetensors"):
            tensors = safetensors.torch.load(path.read_bytes())
            if part == "text_encoder":
                tensors = {f"text_model.{name}": tensor for name, tensor in tensors.items()}
                tensors["text_model.embeddings.position_ids"] = torch.arange(40)[None]
            (tmp_path / part / path.name).write_bytes(safetensors.torch.save(tensors))
    older = BaseModelEntry(**{**vars(entry), "folder": tmp_path})
    assert read_layer_shapes(older) == read_layer_shapes(entry)
