"""What a training tells while it runs and afterwards: samples, validations, its config, and what the next one takes."""

import io
import json
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from personae.v1 import dataset_pb2, training_pb2
from personae.v1 import trainer_pb2 as pb
from tests.browser import open_page
from tests.integration.trainer_calls import CALL_S, TrainerCalls, unique
from tests.metric_values import values
from tests.service_process import ServiceProcess

STEPS = 12
PROMPTS = ["a picture of nova character, happy, red background", "nova character"]
CONFIG = {
    "preset": training_pb2.PRESET_FAST,
    "steps": STEPS,
    "batch_size": 2,
    "rank": 2,
    "adapter_type": training_pb2.ADAPTER_TYPE_DORA,
    "text_encoder_learning_rate": 1e-4,
    "ema_decay": 0.5,
    "horizontal_flip": True,
    "aspect_buckets": True,
    "crop": training_pb2.CROP_SALIENT,
    "caption_template": "a picture of {trigger_word} {class_noun}, {caption}",
    "sample_every": 6,
    "sample_prompts": PROMPTS,
    "validate_every": 4,
    "validation_images": 2,
}


@pytest.fixture(scope="module")
def dataset(trainer: TrainerCalls) -> str:
    consent = dataset_pb2.Consent(given_by="a program", purpose="a test")
    return trainer.dataset(count=6, consent=consent)


@pytest.fixture(scope="module")
def training(trainer: TrainerCalls, dataset: str) -> training_pb2.Training:
    asked = training_pb2.Training(
        dataset=dataset,
        adapter_id=unique("nova"),
        trigger_word="nova",
        config=training_pb2.TrainingConfig(**CONFIG),
        licence="CC-BY-4.0",
    )
    created = trainer.stub.CreateTraining(pb.CreateTrainingRequest(training=asked), timeout=CALL_S).training
    ended = trainer.finish(created.name)
    assert ended.state == training_pb2.Training.STATE_SUCCEEDED, ended
    return created


def test_every_choice_is_echoed(training: training_pb2.Training) -> None:
    config = training.effective_config
    for name, value in CONFIG.items():
        assert (list(getattr(config, name)) if name == "sample_prompts" else getattr(config, name)) == value
    unset = [
        field.name for field in config.DESCRIPTOR.fields if not field.is_repeated and not config.HasField(field.name)
    ]
    assert unset == []


def test_samples_come_as_pictures_of_the_same_prompts_and_seeds(
    trainer: TrainerCalls, training: training_pb2.Training
) -> None:
    events = [event for event in trainer.events(training.name) if event.WhichOneof("kind") == "sample_ready"]
    samples = [event.sample_ready for event in events]
    assert [(sample.step, sample.seed, sample.prompt) for sample in samples] == [
        (step, seed, prompt) for step in (6, 12) for seed, prompt in enumerate(PROMPTS)
    ]
    for sample in samples:
        picture = Image.open(io.BytesIO(sample.content))
        assert (picture.format, picture.size) == ("PNG", (64, 64))
        assert 0 < sample.memorisation < 2
    assert samples[0].content != samples[2].content
    adapter = trainer.stub.GetAdapter(pb.GetAdapterRequest(name=training.adapter), timeout=CALL_S).adapter
    assert [artifact.artifact_id for artifact in adapter.artifacts[1:-1]] == [sample.artifact_id for sample in samples]
    messages = trainer.stub.ReadArtifact(
        pb.ReadArtifactRequest(adapter=training.adapter, artifact_id=samples[3].artifact_id), timeout=CALL_S
    )
    assert b"".join(message.chunk for message in messages) == samples[3].content


def test_the_report_opens_in_a_browser_with_all_that_happened(
    trainer: TrainerCalls, training: training_pb2.Training, tmp_path: Path
) -> None:
    adapter = trainer.stub.GetAdapter(pb.GetAdapterRequest(name=training.adapter), timeout=CALL_S).adapter
    report = adapter.artifacts[-1]
    assert (report.artifact_id, report.media_type) == ("report.html", "text/html")
    asked = pb.ReadArtifactRequest(adapter=training.adapter, artifact_id=report.artifact_id)
    file = tmp_path / "report.html"
    file.write_bytes(b"".join(message.chunk for message in trainer.stub.ReadArtifact(asked, timeout=CALL_S)))
    with open_page(file, 400) as page:
        assert page.value("document.documentElement.scrollWidth") == 400
        assert page.value("[...document.images].every(image => image.complete && image.naturalWidth == 64)")
        count = "document.querySelectorAll('{}').length"
        assert page.value(count.format(".grid img")) == 6
        assert page.value(count.format(".strip .drawn:not(.nearest)")) == 2 * len(PROMPTS)
        assert page.value(count.format(".strip .nearest")) == len(PROMPTS)
        assert page.value(count.format(".chart .dot")) == 3
        text = page.value("document.body.innerText")
    assert all(prompt in text for prompt in PROMPTS)
    assert f"step {adapter.chosen_step} of {STEPS}" in text
    assert [address for address in page.requests if not address.startswith("data:")] == [file.as_uri()]
    assert page.complaints == []


def test_the_best_validation_is_what_is_published(trainer: TrainerCalls, training: training_pb2.Training) -> None:
    events = [event for event in trainer.events(training.name) if event.WhichOneof("kind") == "validated"]
    found = [event.validated for event in events]
    assert [validated.step for validated in found] == [4, 8, 12]
    lowest = [index for index, one in enumerate(found) if all(one.loss < earlier.loss for earlier in found[:index])]
    assert [index for index, validated in enumerate(found) if validated.best] == lowest
    adapter = trainer.stub.GetAdapter(pb.GetAdapterRequest(name=training.adapter), timeout=CALL_S).adapter
    best = found[lowest[-1]]
    assert (adapter.chosen_step, adapter.validation_loss) == (best.step, best.loss)


def test_the_adapter_says_where_it_comes_from(trainer: TrainerCalls, training: training_pb2.Training) -> None:
    adapter = trainer.stub.GetAdapter(pb.GetAdapterRequest(name=training.adapter), timeout=CALL_S).adapter
    assert adapter.training_config == training.effective_config
    assert (adapter.licence, adapter.consent.given_by) == ("CC-BY-4.0", "a program")
    dataset = trainer.stub.GetDataset(pb.GetDatasetRequest(name=training.dataset), timeout=CALL_S).dataset
    assert adapter.dataset_digest == dataset.digest


def test_the_next_training_is_estimated_from_this_one(trainer: TrainerCalls, training: training_pb2.Training) -> None:
    asked = training_pb2.Training(
        dataset=training.dataset, adapter_id=unique("next"), config=training_pb2.TrainingConfig(**CONFIG)
    )
    request = pb.CreateTrainingRequest(training=asked, validate_only=True)
    answer = trainer.stub.CreateTraining(request, timeout=CALL_S)
    assert answer.training.name == ""
    assert answer.report.accepted_count == 6
    assert training.name in answer.estimate.basis
    assert 1e8 < answer.estimate.peak_memory_bytes < 1e11
    events = list(trainer.events(training.name))
    took_s = events[-1].time.ToMilliseconds() / 1000 - events[1].time.ToMilliseconds() / 1000
    assert answer.estimate.duration.ToTimedelta().total_seconds() == pytest.approx(took_s, rel=0.5)


def test_the_service_counts_what_its_worker_did(
    trainer_process: ServiceProcess, training: training_pb2.Training
) -> None:
    with urllib.request.urlopen(f"http://{trainer_process.metrics_address}/metrics", timeout=CALL_S) as answer:
        found = values(answer.read().decode())
    assert found['personae_trainer_trainings_ended_total{reason="",state="succeeded"}'] == 1
    assert found["personae_trainer_steps_total"] == STEPS - 1
    assert found["personae_trainer_trainings_running"] == found["personae_trainer_steps_per_second"] == 0
    for stage in ("loading_base_model", "fetching_images", "encoding", "stepping", "evaluating", "uploading"):
        assert found[f'personae_trainer_stage_seconds_count{{stage="{stage}"}}'] == 1
    assert found['personae_store_call_seconds_count{operation="create",outcome="ok"}'] > 0


def test_every_line_of_a_worker_bears_its_training(
    trainer_process: ServiceProcess, training: training_pb2.Training
) -> None:
    lines = [json.loads(line) for line in trainer_process.log.read_text().splitlines() if line.startswith("{")]
    taken = [line for line in lines if "taken in epoch" in line["message"]]
    assert [line["training"] for line in taken] == [training.name]
    (created,) = (
        line
        for line in lines
        if line.get("training") == training.name
        and "code" in line
        and "call" in line
        and line["method"] == "CreateTraining"
    )
    assert (created["code"], created["project"]) == ("OK", "default")
    read = [line for line in lines if line.get("method") in ("WatchTraining", "GetTraining") and "code" in line]
    assert {line["training"] for line in read} == {training.name}
