"""Proto messages to and from this service's own types; with `servicer.py`, the only place that knows both."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from personae.v1 import adapter_pb2, dataset_pb2, evaluation_pb2, trainer_pb2, training_pb2
from service_kit.adapter_manifest import AdapterManifest, ArtifactEntry, ConsentEntry, EvaluationEntry
from trainer_service import events
from trainer_service.dataset_advice import MINIMUM_IMAGES
from trainer_service.dataset_record import DatasetRecord
from trainer_service.enum_words import number
from trainer_service.exporting import Export
from trainer_service.image_entry import ImageEntry
from trainer_service.lifecycle import Stage
from trainer_service.memory_advice import Advice
from trainer_service.training_record import TrainingRecord
from trainer_service.trainings import Created


def dataset(record: DatasetRecord, with_images: bool = True) -> dataset_pb2.Dataset:
    """A dataset as callers see it."""
    return dataset_pb2.Dataset(
        name=str(record.name),
        create_time=_timestamp(record.created_at),
        update_time=_timestamp(record.updated_at),
        digest=record.digest,
        report=dataset_report(record, with_images),
        consent=consent(record.consent),
    )


def consent(entry: ConsentEntry | None) -> dataset_pb2.Consent | None:
    """A consent as callers see it."""
    return entry and dataset_pb2.Consent(**entry.model_dump())


def dataset_report(record: DatasetRecord, with_images: bool = True) -> dataset_pb2.DatasetReport:
    """The picture doctor's report."""
    verdicts = dataset_pb2.DatasetReport
    return dataset_pb2.DatasetReport(
        verdict=verdicts.VERDICT_READY if record.ready else verdicts.VERDICT_TOO_FEW_IMAGES,
        accepted_count=len(record.accepted),
        rejected_count=len(record.images) - len(record.accepted),
        minimum_count=MINIMUM_IMAGES,
        images=[_image_report(image) for image in record.images] if with_images else [],
        advice=record.advice,
    )


def training(record: TrainingRecord) -> training_pb2.Training:
    """A training as callers see it."""
    config = record.config.model_dump()
    message = training_pb2.Training(
        name=str(record.name),
        state=_enum(training_pb2.Training.State, "STATE", record.state),
        dataset=str(record.dataset_name),
        adapter_id=record.adapter_id,
        adapter=str(record.adapter),
        base_model=record.base_model,
        trigger_word=record.trigger_word,
        class_noun=record.class_noun,
        config=_config(record.given_config),
        effective_config=_config(config),
        completed_steps=record.completed_steps,
        create_time=_timestamp(record.created_at),
        failure=_failure(record.failure),
        cancel_requested=record.cancel_requested,
        licence=record.licence,
    )
    if record.started_at is not None:
        message.start_time.CopyFrom(_timestamp(record.started_at))
    if record.ended_at is not None:
        message.end_time.CopyFrom(_timestamp(record.ended_at))
    return message


def created(found: Created) -> trainer_pb2.CreateTrainingResponse:
    """The answer to CreateTraining; a training that was only validated has no name, but an estimate."""
    message = trainer_pb2.CreateTrainingResponse(training=training(found.record), report=dataset_report(found.dataset))
    if found.estimate is not None:
        message.training.ClearField("name")
        message.estimate.duration.CopyFrom(_duration(found.estimate.seconds))
        message.estimate.peak_memory_bytes = found.estimate.peak_bytes
        message.estimate.basis = found.estimate.basis
        if found.estimate.advice is not None:
            _note_advice(message.estimate, found.estimate.advice)
    return message


def _note_advice(message: training_pb2.TrainingEstimate, advice: Advice) -> None:
    message.device_memory_bytes, message.fits = advice.device_bytes, advice.fits
    message.memory_advice = advice.words
    if advice.smallest:
        preset = message.DESCRIPTOR.fields_by_name["smallest_preset"].enum_type
        message.smallest_preset = number(preset, advice.smallest)
        message.least_memory_bytes = advice.least_bytes


def event(found: events.Event) -> training_pb2.TrainingEvent:
    """An event as callers see it."""
    message = training_pb2.TrainingEvent(sequence=found.sequence, time=_timestamp(found.time), epoch=found.epoch)
    match found.what:
        case events.StateChanged(state=state):
            message.state_changed.state = _enum(training_pb2.Training.State, "STATE", state)
        case events.StageStarted(stage=stage):
            message.stage_started.stage = _stage(stage)
        case events.Progress() as progress:
            message.progress.CopyFrom(
                training_pb2.TrainingEvent.Progress(
                    stage=_stage(progress.stage),
                    completed=progress.completed,
                    total=progress.total,
                    loss=progress.loss,
                    learning_rate=progress.learning_rate,
                    units_per_second=progress.units_per_second,
                    time_left=None if progress.time_left_s is None else _duration(progress.time_left_s),
                )
            )
        case events.CheckpointSaved(step=step):
            message.checkpoint_saved.step = step
        case events.Notice(reason=reason, message=text):
            message.notice.reason, message.notice.message = reason, text
        case events.Validated(step=step, loss=loss, best=best):
            message.validated.step, message.validated.loss, message.validated.best = step, loss, best
        case events.SampleReady() as sample:
            message.sample_ready.CopyFrom(_sample(sample))
        case events.Evaluated(evaluation=entry):
            message.evaluated.evaluation.CopyFrom(evaluation(entry))
        case events.Ended(state=state, failure=failure, adapter=name):
            message.ended.state = _enum(training_pb2.Training.State, "STATE", state)
            message.ended.adapter = name
            if failure is not None:
                message.ended.failure.reason, message.ended.failure.message = failure.reason, failure.message
    return message


def _sample(sample: events.SampleReady) -> training_pb2.TrainingEvent.SampleReady:
    return training_pb2.TrainingEvent.SampleReady(
        step=sample.step,
        prompt=sample.prompt,
        seed=sample.seed,
        content=sample.content,
        artifact_id=sample.artifact_id,
        memorisation=sample.memorisation,
    )


def adapter(manifest: AdapterManifest) -> adapter_pb2.Adapter:
    """An adapter version as callers see it."""
    return adapter_pb2.Adapter(
        name=str(manifest.name),
        base_model=manifest.base_model,
        base_model_digest=manifest.base_model_digest,
        training=manifest.training,
        trigger_word=manifest.trigger_word,
        class_noun=manifest.class_noun,
        rank=manifest.rank,
        targets=training_pb2.LoraTargets.ValueType(number(training_pb2.LoraTargets.DESCRIPTOR, manifest.targets)),
        create_time=_timestamp(manifest.created_at),
        artifacts=[artifact(entry) for entry in manifest.artifacts],
        evaluation=manifest.evaluation and evaluation(manifest.evaluation),
        training_config=_known_config(manifest.training_config),
        dataset_digest=manifest.dataset_digest,
        chosen_step=manifest.chosen_step,
        validation_loss=manifest.validation_loss,
        licence=manifest.licence,
        consent=consent(manifest.consent),
    )


def export(found: Export) -> trainer_pb2.ExportAdapterResponse:
    """An export as callers see it."""
    return trainer_pb2.ExportAdapterResponse(
        adapter=str(found.name), artifact=artifact(found.file), model_card=artifact(found.card)
    )


def evaluation(entry: EvaluationEntry) -> evaluation_pb2.Evaluation:
    """What a judge measured, as callers see it; what it could not measure stays absent."""
    return evaluation_pb2.Evaluation(**entry.model_dump())


def artifact(entry: ArtifactEntry) -> adapter_pb2.Artifact:
    """A file as callers see it."""
    return adapter_pb2.Artifact(
        artifact_id=entry.artifact_id, media_type=entry.media_type, size_bytes=entry.size_bytes, digest=entry.digest
    )


def artifact_header(manifest: AdapterManifest, entry: ArtifactEntry) -> trainer_pb2.ReadArtifactResponse:
    """The first message of a file."""
    header = trainer_pb2.ReadArtifactResponse.Header(adapter=str(manifest.name), artifact=artifact(entry))
    return trainer_pb2.ReadArtifactResponse(header=header)


def _config(values: Mapping[str, Any]) -> training_pb2.TrainingConfig:
    message = training_pb2.TrainingConfig()
    for name, value in values.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        if field.is_repeated:
            getattr(message, name).extend(value)
        else:
            setattr(message, name, number(field.enum_type, value) if field.enum_type else value)
    return message


def _known_config(values: dict[str, int | float | str]) -> training_pb2.TrainingConfig | None:
    """A manifest's config; a newer release may have written more, and an imported adapter has none."""
    known = training_pb2.TrainingConfig.DESCRIPTOR.fields_by_name
    return _config({name: value for name, value in values.items() if name in known}) if values else None


def _image_report(image: ImageEntry) -> dataset_pb2.ImageReport:
    rejections = dataset_pb2.ImageReport
    return dataset_pb2.ImageReport(
        filename=image.filename,
        accepted=image.accepted,
        rejection=_enum(rejections.Rejection, "REJECTION", image.rejection) if image.rejection else None,
        detail=image.detail,
        width=image.width,
        height=image.height,
        source_format=image.source_format,
        conversions=image.conversions,
        caption=image.caption,
        digest=image.digest if image.accepted else "",
        source_width=image.source_width,
        source_height=image.source_height,
        warnings=[_enum(rejections.Warning, "WARNING", warning) for warning in image.warnings],
        has_mask=bool(image.mask_digest),
    )


def _failure(failure: events.Failure | None) -> training_pb2.TrainingFailure | None:
    return failure and training_pb2.TrainingFailure(reason=failure.reason, message=failure.message)


def _stage(stage: Stage) -> training_pb2.Stage:
    return _enum(training_pb2.Stage, "STAGE", stage)


def _enum(wrapper, prefix: str, word: StrEnum):  # type: ignore[no-untyped-def]
    """The enum value that is named as ours is."""
    return wrapper.Value(f"{prefix}_{word.name}")


def _timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message
