"""Messages of the contract -> the client's dataclasses. Pure; the other direction is `requests.py`."""

from datetime import UTC, datetime
from typing import Any, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from personae import events, images, resources
from personae.training_config import TrainingConfig
from personae.v1 import adapter_pb2, dataset_pb2, evaluation_pb2, inference_pb2, training_pb2
from personae.vocabulary import word


def dataset(message: dataset_pb2.Dataset) -> resources.Dataset:
    """A dataset with its report."""
    report = message.report
    return resources.Dataset(
        name=message.name,
        create_time=_time(message.create_time),
        update_time=_time(message.update_time),
        digest=message.digest,
        ready=report.verdict == dataset_pb2.DatasetReport.VERDICT_READY,
        accepted_count=report.accepted_count,
        rejected_count=report.rejected_count,
        minimum_count=report.minimum_count,
        images=tuple(_image_report(found) for found in report.images),
        advice=tuple(report.advice),
    )


def _image_report(message: dataset_pb2.ImageReport) -> resources.ImageReport:
    return resources.ImageReport(
        filename=message.filename,
        accepted=message.accepted,
        rejection=word(dataset_pb2.ImageReport.Rejection.DESCRIPTOR, message.rejection),
        detail=message.detail,
        width=message.width,
        height=message.height,
        source_format=message.source_format,
        conversions=tuple(message.conversions),
        caption=message.caption,
        digest=message.digest,
    )


def training_config(message: training_pb2.TrainingConfig) -> TrainingConfig:
    """Hyper-parameters: what is set."""
    return cast(TrainingConfig, {field.name: _plain(field, value) for field, value in message.ListFields()})


def _plain(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        return word(field.enum_type, value)
    return list(value) if isinstance(field.default_value, list) else value


def training(message: training_pb2.Training) -> resources.TrainingRecord:
    """A training's record."""
    return resources.TrainingRecord(
        name=message.name,
        state=word(training_pb2.Training.State.DESCRIPTOR, message.state),
        dataset=message.dataset,
        adapter=message.adapter,
        base_model=message.base_model,
        trigger_word=message.trigger_word,
        class_noun=message.class_noun,
        config=training_config(message.config),
        effective_config=training_config(message.effective_config),
        completed_steps=message.completed_steps,
        create_time=_time(message.create_time),
        start_time=_time(message.start_time) if message.HasField("start_time") else None,
        end_time=_time(message.end_time) if message.HasField("end_time") else None,
        failure_reason=message.failure.reason,
        failure_message=message.failure.message,
        cancel_requested=message.cancel_requested,
    )


def event(message: training_pb2.TrainingEvent) -> events.TrainingEvent:
    """An event of a training; one of a kind this client does not know keeps its sequence and time only."""
    sequence, time = message.sequence, _time(message.time)
    match message.WhichOneof("kind"):
        case "state_changed":
            return events.StateChanged(
                sequence, time, state=word(training_pb2.Training.State.DESCRIPTOR, message.state_changed.state)
            )
        case "stage_started":
            return events.StageStarted(
                sequence, time, stage=word(training_pb2.Stage.DESCRIPTOR, message.stage_started.stage)
            )
        case "progress":
            return _progress(sequence, time, message.progress)
        case "checkpoint_saved":
            return events.CheckpointSaved(sequence, time, step=message.checkpoint_saved.step)
        case "notice":
            return events.Notice(sequence, time, reason=message.notice.reason, message=message.notice.message)
        case "evaluated":
            return events.Evaluated(sequence, time, evaluation=evaluation(message.evaluated.evaluation))
        case "ended":
            return events.Ended(
                sequence,
                time,
                state=word(training_pb2.Training.State.DESCRIPTOR, message.ended.state),
                adapter=message.ended.adapter,
                failure_reason=message.ended.failure.reason,
                failure_message=message.ended.failure.message,
            )
    return events.TrainingEvent(sequence, time)


def _progress(sequence: int, time: datetime, message: training_pb2.TrainingEvent.Progress) -> events.Progress:
    return events.Progress(
        sequence,
        time,
        stage=word(training_pb2.Stage.DESCRIPTOR, message.stage),
        completed=message.completed,
        total=message.total,
        loss=message.loss if message.HasField("loss") else None,
        learning_rate=message.learning_rate if message.HasField("learning_rate") else None,
        units_per_second=message.units_per_second,
        time_left_s=message.time_left.ToMilliseconds() / 1000,
    )


def artifact(message: adapter_pb2.Artifact) -> resources.Artifact:
    """A file of an adapter version."""
    return resources.Artifact(message.artifact_id, message.media_type, message.size_bytes, message.digest)


def adapter(message: adapter_pb2.Adapter) -> resources.Adapter:
    """An adapter version."""
    return resources.Adapter(
        name=message.name,
        base_model=message.base_model,
        base_model_digest=message.base_model_digest,
        training=message.training,
        trigger_word=message.trigger_word,
        class_noun=message.class_noun,
        rank=message.rank,
        targets=word(training_pb2.LoraTargets.DESCRIPTOR, message.targets),
        create_time=_time(message.create_time),
        artifacts=tuple(artifact(found) for found in message.artifacts),
        evaluation=evaluation(message.evaluation) if message.HasField("evaluation") else None,
    )


def evaluation(message: evaluation_pb2.Evaluation) -> resources.Evaluation:
    """What was measured of an adapter; a number that is not set becomes None."""
    measured: dict[str, float] = {field.name: value for field, value in message.ListFields() if field.name != "judge"}
    return resources.Evaluation(
        judge=message.judge,
        likeness=measured.get("likeness"),
        obedience=measured.get("obedience"),
        memorisation=measured.get("memorisation"),
        diversity=measured.get("diversity"),
    )


def image(message: inference_pb2.GenerateResponse.Image, *, index: int, prompt_index: int, prompt: str) -> images.Image:
    """A generated image; its place among those asked for is the caller's to know, because a request may be a rest."""
    return images.Image(
        index=index,
        prompt_index=prompt_index,
        prompt=prompt,
        seed=message.seed,
        width=message.width,
        height=message.height,
        media_type=message.media_type,
        content=message.content,
        digest=message.digest,
        filtered=message.finish_reason == inference_pb2.GenerateResponse.Image.FINISH_REASON_FILTERED,
    )


def _time(message: Timestamp) -> datetime:
    return message.ToDatetime(tzinfo=UTC)
