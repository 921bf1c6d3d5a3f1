"""Messages of the contract -> the client's dataclasses. Pure; the other direction is `requests.py`."""

from datetime import UTC, datetime
from typing import Any, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from personae import events, images, resources
from personae.training_config import TrainingConfig
from personae.v1 import adapter_pb2, dataset_pb2, evaluation_pb2, inference_pb2, trainer_pb2, training_pb2
from personae.vocabulary import Preset, word


def dataset(message: dataset_pb2.Dataset) -> resources.Dataset:
    """A dataset with its report."""
    return resources.Dataset(
        **_findings(message.report),
        name=message.name,
        create_time=_time(message.create_time),
        update_time=_time(message.update_time),
        digest=message.digest,
        consent=consent(message.consent) if message.HasField("consent") else None,
    )


def consent(message: dataset_pb2.Consent) -> resources.Consent:
    """Who gave the right to learn from pictures."""
    return resources.Consent(message.given_by, message.purpose, message.evidence)


def _findings(message: dataset_pb2.DatasetReport) -> dict[str, Any]:
    """The fields of a DatasetReport, which are also among those of a Dataset."""
    return {
        "ready": message.verdict == dataset_pb2.DatasetReport.VERDICT_READY,
        "accepted_count": message.accepted_count,
        "rejected_count": message.rejected_count,
        "minimum_count": message.minimum_count,
        "images": tuple(_image_report(found) for found in message.images),
        "advice": tuple(message.advice),
    }


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
        source_width=message.source_width,
        source_height=message.source_height,
        warnings=tuple(word(dataset_pb2.ImageReport.Warning.DESCRIPTOR, found) for found in message.warnings),
        has_mask=message.has_mask,
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
        licence=message.licence,
    )


def _preset(number: int) -> Preset | None:
    return cast(Preset, word(training_pb2.Preset.DESCRIPTOR, number)) if number else None


def training_plan(message: trainer_pb2.CreateTrainingResponse) -> resources.TrainingPlan:
    """What a training would be."""
    return resources.TrainingPlan(
        dataset=message.training.dataset,
        report=resources.DatasetReport(**_findings(message.report)),
        base_model=message.training.base_model,
        trigger_word=message.training.trigger_word,
        class_noun=message.training.class_noun,
        effective_config=training_config(message.training.effective_config),
        duration_s=message.estimate.duration.ToMilliseconds() / 1000,
        peak_memory_bytes=message.estimate.peak_memory_bytes,
        basis=message.estimate.basis,
        device_memory_bytes=message.estimate.device_memory_bytes,
        fits=message.estimate.fits if message.estimate.HasField("fits") else None,
        smallest_preset=_preset(message.estimate.smallest_preset),
        least_memory_bytes=message.estimate.least_memory_bytes,
        memory_advice=message.estimate.memory_advice,
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
        case "validated":
            return events.Validated(
                sequence,
                time,
                step=message.validated.step,
                loss=message.validated.loss,
                best=message.validated.best,
            )
        case "sample_ready":
            return _sample(sequence, time, message.sample_ready)
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


def _sample(sequence: int, time: datetime, message: training_pb2.TrainingEvent.SampleReady) -> events.SampleReady:
    return events.SampleReady(
        sequence,
        time,
        step=message.step,
        prompt=message.prompt,
        seed=message.seed,
        content=message.content,
        artifact_id=message.artifact_id,
        memorisation=message.memorisation if message.HasField("memorisation") else None,
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
        training_config=training_config(message.training_config),
        dataset_digest=message.dataset_digest,
        chosen_step=message.chosen_step,
        validation_loss=message.validation_loss if message.HasField("validation_loss") else None,
        licence=message.licence,
        consent=consent(message.consent) if message.HasField("consent") else None,
    )


def served_adapter(message: inference_pb2.ServedAdapter) -> resources.ServedAdapter:
    """An adapter that a server holds."""
    return resources.ServedAdapter(
        adapter=message.adapter,
        residency=word(inference_pb2.ServedAdapter.Residency.DESCRIPTOR, message.residency),
        size_bytes=message.size_bytes,
        last_use_time=_time(message.last_use_time),
        pinned=message.pinned,
    )


def served_base_model(message: inference_pb2.ServedBaseModel) -> resources.ServedBaseModel:
    """A base model that a server draws with."""
    scheduler = inference_pb2.Scheduler.DESCRIPTOR
    return resources.ServedBaseModel(
        base_model=message.base_model,
        digest=message.digest,
        size_step=message.size_step,
        min_size=message.min_size,
        max_size=message.max_size,
        default_size=message.default_size,
        max_prompt_tokens=message.max_prompt_tokens,
        default_steps=message.default_steps,
        default_guidance_scale=message.default_guidance_scale,
        default_scheduler=word(scheduler, message.default_scheduler),
        schedulers=tuple(word(scheduler, number) for number in message.schedulers),
        max_guidance_scale=message.max_guidance_scale,
        takes_negative_prompt=message.takes_negative_prompt,
    )


def exported_adapter(message: trainer_pb2.ExportAdapterResponse) -> resources.ExportedAdapter:
    """An adapter in another program's key names."""
    return resources.ExportedAdapter(message.adapter, artifact(message.artifact), artifact(message.model_card))


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
        uri=message.uri,
    )


def made_image(message: inference_pb2.MadeImage) -> images.MadeImage:
    """An image in a listing."""
    return images.MadeImage(message.digest, message.project, message.generation, message.uri)


def image_origin(message: inference_pb2.LookUpImageResponse) -> images.ImageOrigin:
    """Where an image came from."""
    return images.ImageOrigin(
        generation=message.generation,
        create_time=_time(message.create_time),
        adapters=tuple(images.AppliedAdapter(used.adapter, used.weight, used.digest) for used in message.adapters),
        base_model=message.base_model,
        base_model_digest=message.base_model_digest,
    )


def _time(message: Timestamp) -> datetime:
    return message.ToDatetime(tzinfo=UTC)
