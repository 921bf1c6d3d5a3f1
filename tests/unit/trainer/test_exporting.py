"""ExportAdapter: what lies in the bucket afterwards, and what every later export answers."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from base_models.catalog import BaseModelEntry, read_allow_list
from personae.v1 import adapter_pb2, trainer_pb2
from service_kit import schema
from service_kit.adapter_manifest import AdapterManifest, ArtifactEntry, ConsentEntry, read_manifest
from service_kit.errors import DataLost, InvalidRequest, ResourceMissing
from service_kit.memory_store import MemoryStore
from service_kit.names import AdapterName
from tests import bucket_adapters
from tests.interrupted_store import InterruptedStore
from tests.unit.trainer.made_things import sweep
from tests.unit.trainer.trainer_fakes import Clock
from trainer_service import asked, wire
from trainer_service.adapters import Adapters
from trainer_service.deletion import Deletion
from trainer_service.exporting import Export, Exporting

CAT = AdapterName("default", "cat")
LAYER = "unet.conv_in"
UNSET = ArtifactEntry(artifact_id="", media_type="", size_bytes=0, digest="")
CONFIG = {
    "steps": 140,
    "learning_rate": 5e-3,
    "seed": 7,
    "precision": "bfloat16",
    "resolution": 64,
    "min_snr_gamma": 0.0,
    "prior_weight": 0.5,
    "prior_images": 32,
}


def _body() -> bytes:
    shapes = {"lora_A.weight": (2, 4, 3, 3), "lora_B.weight": (64, 2, 1, 1)}
    return safetensors.numpy.save({f"{LAYER}.{name}": np.ones(shape, np.float32) for name, shape in shapes.items()})


def _publish(store: MemoryStore, version: int = 1, **changes: Any) -> AdapterManifest:
    """An adapter version with a real file, and a manifest that differs by `changes`."""
    name = CAT.version(version)
    bucket_adapters.publish(store, name, _body())
    manifest = read_manifest(store, name)
    assert manifest is not None
    changed = manifest.model_copy(update=changes)
    store.put(schema.adapter_manifest(name), changed.to_json())
    return changed


def _exporting(store: MemoryStore, base_models: dict[str, BaseModelEntry] | None = None) -> Exporting:
    allowed = read_allow_list(["toon-64"]) if base_models is None else base_models
    return Exporting(store, Adapters(store), allowed)


def _read(store: MemoryStore, export: Export, artifact_id: str) -> bytes:
    adapters = Adapters(store)
    return b"".join(adapters.read(adapters.open(export.name, artifact_id, 0), 0))


def _header(store: MemoryStore, export: Export) -> dict[str, str]:
    body = store.get(schema.adapter_blob(export.name, export.file.digest)).body
    metadata: dict[str, str] = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])["__metadata__"]
    return metadata


@pytest.mark.parametrize(
    ("key_names", "key"), [("diffusers", f"{LAYER}.lora_A.weight"), ("kohya", "lora_unet_conv_in.lora_down.weight")]
)
def test_an_export_can_be_read_like_any_file_of_the_adapter(key_names: Any, key: str) -> None:
    store = MemoryStore()
    _publish(store)
    export = _exporting(store).export(CAT, key_names)
    assert export.name == CAT.version(1)
    assert export.file.artifact_id == f"exports/{key_names}.safetensors"
    body = _read(store, export, export.file.artifact_id)
    assert (len(body), hashlib.sha256(body).hexdigest()) == (export.file.size_bytes, export.file.digest)
    assert np.array_equal(safetensors.numpy.load(body)[key], np.ones((2, 4, 3, 3), np.float32))
    assert _read(store, export, "exports/README.md").startswith(b"---\nlibrary_name: diffusers\n")
    assert export.card.media_type == "text/markdown"


def test_exporting_again_writes_nothing_and_answers_the_same() -> None:
    store = MemoryStore()
    _publish(store)
    first = _exporting(store).export(CAT.version(1), "kohya")
    before = {key: store.get(key).body for key in store.keys("")}
    # Even where the same adapter would be described otherwise today.
    assert _exporting(store, {}).export(CAT.version(1), "kohya") == first
    assert {key: store.get(key).body for key in store.keys("")} == before
    assert _exporting(store).export(CAT, "diffusers").card == first.card


def test_of_two_exports_at_once_the_first_record_counts_for_both() -> None:
    class Racing(MemoryStore):
        """Another service exports just before this one writes its first record."""

        other: Export | None = None

        def create(self, key: str, body: bytes) -> str:
            if "/exports/" in key and self.other is None:
                self.other = Export(CAT.version(1), UNSET, UNSET)
                self.other = _exporting(self, {}).export(CAT, "kohya")
            return super().create(key, body)

    store = Racing()
    _publish(store)
    assert _exporting(store).export(CAT, "kohya") == store.other


@pytest.mark.parametrize("before", ["/blobs/", "/exports/kohya", "/exports/README"])
def test_an_export_of_an_adapter_that_is_deleted_meanwhile_is_missing_and_leaves_nothing(before: str) -> None:
    behind = MemoryStore()
    _publish(behind)

    def delete_and_sweep() -> None:
        Deletion(behind, Clock()).delete_adapter(CAT, "")
        sweep(behind)

    store = InterruptedStore(behind, lambda keys: before in keys[-1], delete_and_sweep)
    with pytest.raises(ResourceMissing, match="deleted meanwhile"):
        _exporting(store).export(CAT, "kohya")
    sweep(behind)
    assert list(behind.keys("")) == [schema.tombstone(CAT.version(1))]


def test_the_header_says_what_the_manifest_knows_and_nothing_else() -> None:
    store = MemoryStore()
    manifest = _publish(
        store,
        training_config=CONFIG,
        image_count=16,
        chosen_step=120,
        licence="CC-BY-4.0",
        consent=ConsentEntry(given_by="me", purpose="x"),
    )
    header = _header(store, _exporting(store).export(CAT, "kohya"))
    digest = header.pop("modelspec.hash_sha256")
    assert (digest[:2], len(digest)) == ("0x", 66)
    assert json.loads(header.pop("personae.training_config")) == CONFIG
    assert header == {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "toon-64/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": "cat, version 1",
        "modelspec.description": "A LoRA of zxq character for toon-64.",
        "modelspec.date": "2026-01-01T00:00:00+00:00",
        "modelspec.usage_hint": "begin prompts with: a picture of zxq character",
        "modelspec.trigger_phrase": "zxq",
        "modelspec.prediction_type": "v",
        "modelspec.resolution": "64x64",
        "modelspec.license": "CC-BY-4.0",
        "ss_output_name": "cat-v1",
        "ss_sd_model_name": "toon-64",
        "ss_base_model_version": "toon-64",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "4.0",
        "ss_mixed_precision": "bf16",
        "ss_num_train_images": "16",
        "ss_steps": "120",
        "ss_max_train_steps": "140",
        "ss_learning_rate": "0.005",
        "ss_unet_lr": "0.005",
        "ss_seed": "7",
        "ss_prior_loss_weight": "0.5",
        "ss_num_reg_images": "32",
        "ss_resolution": "(64, 64)",
        "personae.adapter": "projects/default/adapters/cat/versions/1",
        "personae.adapter_digest": manifest.artifacts[0].digest,
        "personae.base_model_digest": bucket_adapters.BASE_MODEL_DIGEST,
        "personae.dataset_digest": "0" * 64,
    }


def test_an_adapter_whose_base_model_is_gone_and_whose_training_is_unknown_is_exported_all_the_same() -> None:
    store = MemoryStore()
    _publish(store)
    header = _header(store, _exporting(store, {}).export(CAT, "diffusers"))
    assert header["modelspec.architecture"] == "toon-64/lora"
    unknown = {"modelspec.prediction_type", "modelspec.resolution", "modelspec.license", "ss_steps", "ss_seed"}
    assert not unknown & header.keys()
    assert "None" not in header.values()


def test_an_adapter_of_sdxl_has_kohyas_names_for_it_even_where_its_base_model_is_gone() -> None:
    store = MemoryStore()
    _publish(store, base_model="sdxl", pipeline="StableDiffusionXLPipeline")
    export = _exporting(store, {}).export(CAT, "kohya")
    tensors = safetensors.numpy.load(_read(store, export, export.file.artifact_id))
    assert "lora_unet_input_blocks_0_0.lora_up.weight" in tensors
    assert _header(store, export)["modelspec.implementation"] == "https://github.com/Stability-AI/generative-models"
    assert _header(store, _exporting(store, {}).export(CAT, "diffusers"))["modelspec.implementation"] == "diffusers"


def test_the_latest_version_is_exported_where_none_is_named() -> None:
    store = MemoryStore()
    _publish(store, 1)
    _publish(store, 2)
    assert _exporting(store).export(CAT, "kohya").name == CAT.version(2)
    with pytest.raises(ResourceMissing, match="ExportAdapter makes it"):
        Adapters(store).open(CAT.version(1), "exports/kohya.safetensors", 0)


@pytest.mark.parametrize("artifact_id", ["exports/other.safetensors", "exports/../reservation", "exports/"])
def test_only_known_exports_are_looked_for(artifact_id: str) -> None:
    store = MemoryStore()
    _publish(store)
    _exporting(store).export(CAT, "kohya")
    with pytest.raises(ResourceMissing, match="there are adapter"):
        Adapters(store).open(CAT, artifact_id, 0)


def test_what_is_missing_or_damaged_is_said() -> None:
    store = MemoryStore()
    with pytest.raises(ResourceMissing):
        _exporting(store).export(CAT, "kohya")
    manifest = _publish(store)
    store.put(schema.adapter_blob(manifest.name, manifest.artifacts[0].digest), _body()[:-1] + b"x")
    with pytest.raises(DataLost):
        _exporting(store).export(CAT, "kohya")
    assert not [key for key in store.keys("") if "/exports/" in key]


def test_a_wrong_name_and_a_wrong_format_are_said_together() -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked.export_request(trainer_pb2.ExportAdapterRequest(name="cat"))
    assert {violation.field for violation in caught.value.violations} == {"name", "format"}
    right = trainer_pb2.ExportAdapterRequest(name=str(CAT), format=adapter_pb2.ADAPTER_FORMAT_KOHYA)
    assert asked.export_request(right) == (CAT, "kohya")


def test_callers_see_what_the_manifest_holds() -> None:
    manifest = _publish(
        MemoryStore(),
        training_config={"steps": 140, "targets": "all", "from_a_later_release": 1},
        dataset_digest="d" * 64,
        chosen_step=120,
        validation_loss=0.25,
        licence="CC-BY-4.0",
        consent=ConsentEntry(given_by="Ada", purpose="a comic"),
    )
    seen = wire.adapter(manifest)
    assert (seen.training_config.steps, seen.chosen_step, seen.validation_loss) == (140, 120, 0.25)
    assert (seen.dataset_digest, seen.licence, seen.consent.given_by) == ("d" * 64, "CC-BY-4.0", "Ada")
    older = wire.adapter(_publish(MemoryStore()))
    assert not older.HasField("training_config")
    assert not older.HasField("validation_loss")
