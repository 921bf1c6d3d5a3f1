"""The report that a worker publishes beside its adapter: of the whole training, and never at the adapter's cost."""

import dataclasses
import re

import pytest
import torch

from base_models.catalog import BaseModelEntry
from base_models.families.stable_diffusion import StableDiffusion
from base_models.traits.family_traits import GenerationDefaults
from service_kit import schema
from service_kit.adapter_manifest import AdapterManifest, read_manifest
from service_kit.memory_store import MemoryStore
from tests.unit.trainer.trainer_fakes import Trainer, request
from tests.unit.worker.dying_worker import DyingStore, carry_out
from trainer_service.events import Notice
from trainer_service.journal import Journal
from trainer_service.training_record import TrainingRecord
from trainer_service.worker.exit_code import ExitCode

PROMPTS = ("a picture of sks character, <b>sad</b>",)
CONFIG = {"steps": 2, "checkpoint_every": 1, "rank": 2, "batch_size": 4, "seed": 5, "sample_every": 1}
CONFIG |= {"sample_prompts": PROMPTS, "validate_every": 0, "targets": "attention"}
WHOLE = {"validate_every": 1, "validation_images": 2, "horizontal_flip": True}


@pytest.fixture(scope="module")
def quick_base(entry: BaseModelEntry) -> StableDiffusion:
    """The bundled base model, which draws in two steps."""
    return StableDiffusion(
        dataclasses.replace(entry, generation=GenerationDefaults(2, 3.0, "ddim")), torch.device("cpu")
    )


def new_training(store: MemoryStore, **config: object) -> TrainingRecord:
    trainer = Trainer(store)
    trainer.dataset(count=5)
    return trainer.trainings.create(request(config=CONFIG | config)).record


def published(store: MemoryStore, record: TrainingRecord) -> AdapterManifest:
    manifest = read_manifest(store, record.adapter)
    assert manifest is not None
    return manifest


def test_a_training_that_was_resumed_is_reported_as_a_whole(quick_base: StableDiffusion) -> None:
    store = MemoryStore()
    record = new_training(store, **WHOLE)
    # In the middle of step 2, which is then done again from the checkpoint of step 1.
    dying = DyingStore(store, lambda writes: writes[-1].endswith("samples/000002-0.png"))
    carry_out(dying, record.name, quick_base, "first")
    assert dying.is_dead
    assert carry_out(store, record.name, quick_base, "second") is ExitCode.DONE
    entry = published(store, record).artifacts[-1]
    assert (entry.artifact_id, entry.media_type) == ("report.html", "text/html")
    html = store.get(schema.adapter_blob(record.adapter, entry.digest)).body.decode()
    assert html.count('class="dot"') == CONFIG["steps"]
    assert re.findall(r'alt="drawn at step (\d)"', html) == ["1", "2"]
    assert html.count('class="drawn closest"') == html.count('class="drawn nearest"') == 1
    assert "&lt;b&gt;sad&lt;/b&gt;" in html
    assert html.count('<b class="mark">held out</b>') == WHOLE["validation_images"]
    assert "Each was also learned mirrored." in html
    assert "goes on from the checkpoint of step 1" in html


class Tearing(MemoryStore):
    """Keeps only the beginning of each sample."""

    def put(self, key: str, body: bytes) -> None:
        super().put(key, body[:60] if "/samples/" in key else body)


def test_a_report_that_cannot_be_made_costs_a_notice_and_not_the_adapter(quick_base: StableDiffusion) -> None:
    store = Tearing()
    record = new_training(store, steps=1)
    assert carry_out(store, record.name, quick_base, "alone") is ExitCode.DONE
    artifacts = [entry.artifact_id for entry in published(store, record).artifacts]
    assert artifacts[0] == "adapter.safetensors"
    assert "report.html" not in artifacts
    happened = [event.what for event in Journal(store, record.name).before(epoch=99)]
    assert [what.reason for what in happened if isinstance(what, Notice)] == ["REPORT_FAILED"]
