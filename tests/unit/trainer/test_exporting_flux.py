"""ExportAdapter of a family whose layers other programs have fused: what the header says, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from base_models.catalog import BUNDLED, BaseModelEntry, describe
from service_kit import schema
from service_kit.adapter_manifest import read_manifest
from service_kit.errors import PreconditionUnmet
from service_kit.memory_store import MemoryStore
from service_kit.names import AdapterName
from tests import bucket_adapters
from tests.flux_layers import FLUX, TARGETS, Tensors, adapter, targeted
from tests.lora_files import file
from trainer_service.adapters import Adapters
from trainer_service.exporting import Exporting
from trainer_service.model_card import model_card

CAT = AdapterName("default", "cat")


def _published(tensors: Tensors) -> MemoryStore:
    store, name = MemoryStore(), CAT.version(1)
    bucket_adapters.publish(store, name, file(tensors))
    manifest = read_manifest(store, name)
    assert manifest is not None
    store.put(
        schema.adapter_manifest(name), manifest.model_copy(update={"base_model": "flux", "pipeline": FLUX}).to_json()
    )
    return store


@pytest.fixture
def flux(tmp_path: Path) -> BaseModelEntry:
    """An entry with the configuration of FLUX.1 schnell, without weights."""
    config = {"num_layers": 19, "num_single_layers": 38, "guidance_embeds": False}
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(config))
    toon = describe("flux", BUNDLED["toon-64"])
    return BaseModelEntry(**{**vars(toon), "folder": tmp_path, "pipeline": FLUX})


def test_the_header_names_the_model_its_code_and_kohyas_module_for_it(flux: BaseModelEntry) -> None:
    store = _published(adapter(targeted(TARGETS["attention"])))
    export = Exporting(store, Adapters(store), {"flux": flux}).export(CAT, "kohya")
    body = store.get(schema.adapter_blob(export.name, export.file.digest)).body
    header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])["__metadata__"]
    assert header["modelspec.architecture"] == "flux-1-schnell/lora"
    assert header["modelspec.implementation"] == "https://github.com/black-forest-labs/flux"
    assert (header["ss_network_module"], header["ss_base_model_version"]) == ("networks.lora_flux", "flux1")
    # ModelSpec has no word for a velocity.
    assert "modelspec.prediction_type" not in header
    # The last attention has q, k and v but not what stands beside them.
    up = safetensors.numpy.load(body)["lora_unet_single_blocks_10_linear1.lora_up.weight"]
    assert up.shape == (7 * 8, 3 * 2)
    assert not np.any(up[3 * 8 :])


def test_a_dora_of_some_parts_is_refused_in_kohyas_names_and_leaves_nothing() -> None:
    store = _published(adapter(targeted(TARGETS["attention"]), is_dora=True))
    before = set(store.keys(""))
    exporting = Exporting(store, Adapters(store), {})
    with pytest.raises(PreconditionUnmet, match="export it in diffusers' names") as caught:
        exporting.export(CAT, "kohya")
    assert (caught.value.reason, caught.value.subject) == ("FORMAT_UNSUITABLE", str(CAT.version(1)))
    assert set(store.keys("")) == before
    assert exporting.export(CAT, "diffusers").file.size_bytes > 0


def test_the_card_says_who_reads_the_file_in_kohyas_names() -> None:
    manifest = read_manifest(_published(adapter(targeted(TARGETS["attention"]))), CAT.version(1))
    assert manifest is not None
    assert "where it was exported, is the same adapter for Kohya's scripts and ComfyUI." in model_card(manifest)
