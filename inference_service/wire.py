"""The contract's messages to this service's own types, and back. Decides nothing.

Enum values that this release does not know are passed on as text, so that they are refused with all else that is wrong.
"""

from collections.abc import Iterable
from datetime import timedelta

from google.protobuf import duration_pb2, timestamp_pb2

from base_models.traits.family_traits import SchedulerName
from inference_service.admission import Admission
from inference_service.delivery import Delivery, FileFormat
from inference_service.events import Accepted, Done, Event, FinishedImage, PreviewFile, Progress, Queued
from inference_service.generation import AdapterDraft, GenerationDraft, GenerationRequest, PromptDraft
from inference_service.generation_check import max_guidance_scale, takes_negative_prompt
from inference_service.ledger import LedgerEntry
from inference_service.served_adapters import Residency, ServedAdapter
from inference_service.start_pictures import Start, StartDraft
from inference_service.studio import ServedBaseModel
from personae.v1 import inference_pb2 as pb
from service_kit.made_image import MadeImageEntry

_SCHEDULERS: dict[SchedulerName, "pb.Scheduler.ValueType"] = {
    "ddim": pb.SCHEDULER_DDIM,
    "euler": pb.SCHEDULER_EULER,
    "dpm_solver_multistep": pb.SCHEDULER_DPM_SOLVER_MULTISTEP,
}
_FORMATS: dict[FileFormat, "pb.ImageFormat.ValueType"] = {
    "png": pb.IMAGE_FORMAT_PNG,
    "webp": pb.IMAGE_FORMAT_WEBP,
    "jpeg": pb.IMAGE_FORMAT_JPEG,
}
_DELIVERIES: dict[Delivery, "pb.ImageDelivery.ValueType"] = {
    "inline": pb.IMAGE_DELIVERY_INLINE,
    "bucket": pb.IMAGE_DELIVERY_BUCKET,
}
_RESIDENCIES: dict[Residency, "pb.ServedAdapter.Residency.ValueType"] = {
    "disk": pb.ServedAdapter.RESIDENCY_DISK,
    "host": pb.ServedAdapter.RESIDENCY_HOST,
    "slot": pb.ServedAdapter.RESIDENCY_SLOT,
}
_SCHEDULER_NAMES: dict[int, str] = {value: name for name, value in _SCHEDULERS.items()}
_FORMAT_NAMES: dict[int, str] = {value: name for name, value in _FORMATS.items()}
_DELIVERY_NAMES: dict[int, str] = {value: name for name, value in _DELIVERIES.items()}


def to_draft(request: pb.GenerateRequest) -> GenerationDraft:
    """What the caller sent."""
    return GenerationDraft(
        prompts=tuple(PromptDraft(prompt.text, tuple(prompt.seeds)) for prompt in request.prompts),
        project=request.project,
        base_model=request.base_model,
        adapters=tuple(
            AdapterDraft(adapter.adapter, adapter.weight if adapter.HasField("weight") else None)
            for adapter in request.adapters
        ),
        images_per_prompt=request.images_per_prompt if request.HasField("images_per_prompt") else None,
        negative_prompt=request.negative_prompt,
        guidance_scale=request.guidance_scale if request.HasField("guidance_scale") else None,
        steps=request.steps if request.HasField("steps") else None,
        scheduler=_SCHEDULER_NAMES.get(request.scheduler, str(request.scheduler)) if request.scheduler else None,
        width=request.width if request.HasField("width") else None,
        height=request.height if request.HasField("height") else None,
        file_format=_FORMAT_NAMES.get(request.format, str(request.format)) if request.format else None,
        preview_every=request.preview_every,
        delivery=_DELIVERY_NAMES.get(request.delivery, str(request.delivery)) if request.delivery else None,
        start=_start_draft(request.start) if request.HasField("start") else None,
    )


def _start_draft(start: pb.StartPicture) -> StartDraft:
    chosen = start.WhichOneof("picture")
    return StartDraft(
        content=start.content if chosen == "content" else None,
        image=start.image if chosen == "image" else None,
        strength=start.strength if start.HasField("strength") else None,
        mask=start.mask,
    )


def from_event(event: Event) -> pb.GenerateResponse:
    """One message of the stream."""
    match event:
        case Accepted():
            accepted = pb.GenerateResponse.Accepted(
                generation=event.generation,
                image_count=len(event.request.tasks),
                effective_request=_effective_request(event.request),
            )
            return pb.GenerateResponse(accepted=accepted)
        case Queued():
            return pb.GenerateResponse(queued=pb.GenerateResponse.Queued(images_ahead=event.images_ahead))
        case Progress():
            progress = pb.GenerateResponse.Progress(
                indices=event.indices, completed_steps=event.completed_steps, total_steps=event.total_steps
            )
            return pb.GenerateResponse(progress=progress)
        case PreviewFile():
            preview = pb.GenerateResponse.Preview(
                index=event.task.index, completed_steps=event.completed_steps, content=event.content
            )
            return pb.GenerateResponse(preview=preview)
        case FinishedImage():
            return pb.GenerateResponse(image=_image(event))
        case Done():
            done = pb.GenerateResponse.Done(
                image_count=event.image_count,
                queue_time=_duration(event.queue_s),
                generation_time=_duration(event.generation_s),
            )
            return pb.GenerateResponse(done=done)


def from_serving(served: Iterable[ServedBaseModel], admission: Admission) -> pb.GetServingInfoResponse:
    """What is served and how busy it is."""
    return pb.GetServingInfoResponse(
        base_models=[_base_model(base) for base in served],
        images_waiting=admission.images_waiting,
        requests_open=admission.requests_open,
        requests_limit=admission.limits.requests,
        cost_waiting=admission.cost_waiting,
        cost_limit=admission.limits.cost,
        project_cost_limit=admission.limits.project_cost,
        project_requests_limit=admission.limits.project_requests,
        cost_per_second=admission.passes_per_s,
    )


def served_adapter(adapter: ServedAdapter) -> pb.ServedAdapter:
    """An adapter and where it is."""
    message = pb.ServedAdapter(
        adapter=adapter.name,
        residency=_RESIDENCIES[adapter.residency],
        size_bytes=adapter.size_bytes,
        pinned=adapter.pinned,
    )
    message.last_use_time.FromDatetime(adapter.last_use_time)
    return message


def from_ledger(entry: LedgerEntry) -> pb.LookUpImageResponse:
    """Where a picture came from."""
    created = timestamp_pb2.Timestamp()
    created.FromDatetime(entry.created_at)
    return pb.LookUpImageResponse(
        generation=entry.generation,
        create_time=created,
        adapters=[
            pb.LookUpImageResponse.AppliedAdapter(adapter=used.adapter, weight=used.weight, digest=used.digest)
            for used in entry.adapters
        ],
        base_model=entry.base_model,
        base_model_digest=entry.base_model_digest,
    )


def made_image(image: MadeImageEntry, uri: str) -> pb.MadeImage:
    """An image that was made here, as callers see it."""
    return pb.MadeImage(digest=image.digest, project=image.project, generation=image.generation, uri=uri)


def _effective_request(request: GenerationRequest) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        project=request.project,
        base_model=request.base_model,
        adapters=[pb.AdapterWeight(adapter=str(wanted.name), weight=wanted.weight) for wanted in request.adapters],
        prompts=[pb.GenerateRequest.Prompt(text=prompt.text, seeds=prompt.seeds) for prompt in request.prompts],
        images_per_prompt=request.images_per_prompt,
        negative_prompt=request.negative_prompt,
        guidance_scale=request.guidance_scale,
        steps=request.steps,
        scheduler=_SCHEDULERS[request.scheduler],
        width=request.width,
        height=request.height,
        format=_FORMATS[request.file_format],
        start=None if request.start is None else _start(request.start),
        preview_every=request.preview_every,
        delivery=_DELIVERIES[request.delivery],
    )


def _start(start: Start) -> pb.StartPicture:
    return pb.StartPicture(image=None if start.image is None else str(start.image), strength=start.strength)


def _image(image: FinishedImage) -> pb.GenerateResponse.Image:
    reasons = pb.GenerateResponse.Image
    return pb.GenerateResponse.Image(
        index=image.task.index,
        prompt_index=image.task.prompt_index,
        seed=image.task.seed,
        finish_reason=reasons.FINISH_REASON_FILTERED if image.filtered else reasons.FINISH_REASON_COMPLETED,
        content=image.content,
        media_type=image.media_type,
        width=image.width,
        height=image.height,
        digest=image.digest,
        uri=image.uri,
    )


def _base_model(base: ServedBaseModel) -> pb.ServedBaseModel:
    entry = base.entry
    return pb.ServedBaseModel(
        base_model=entry.name,
        digest=base.digest,
        size_step=entry.size_step,
        min_size=entry.min_size,
        max_size=entry.max_size,
        default_size=entry.default_size,
        max_prompt_tokens=entry.max_prompt_tokens,
        default_steps=entry.generation.steps,
        default_guidance_scale=entry.generation.guidance_scale,
        default_scheduler=_SCHEDULERS[entry.generation.scheduler],
        schedulers=[_SCHEDULERS[scheduler] for scheduler in entry.traits.schedulers],
        max_guidance_scale=max_guidance_scale(entry),
        takes_negative_prompt=takes_negative_prompt(entry),
    )


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
