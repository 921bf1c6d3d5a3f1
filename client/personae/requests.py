"""What a caller means -> messages of the contract. Pure: ids come in as arguments, nothing is sent.

Both clients use it, by way of `calls.py`: whatever is decided about a request is decided here.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from personae.errors import InvalidRequest, Violation
from personae.generation_options import GenerationOptions
from personae.images import Image
from personae.pictures import Picture
from personae.resources import Adapter, Dataset
from personae.start_picture import start_picture
from personae.training_config import TrainingConfig
from personae.v1 import adapter_pb2, inference_pb2, trainer_pb2, training_pb2
from personae.vocabulary import AdapterFormat, number

CHUNK_BYTES = 1024 * 1024
"""The contract's limit for one chunk."""

_PREVIEW_EVERY = 5

AdapterChoice = Adapter | str | tuple[Adapter | str, float]
"""An adapter, its name or its id; with a weight where it is not 1."""
Seeds = Sequence[int] | Sequence[Sequence[int]]
"""The seeds of every prompt, or for each prompt its own."""


def parent(project: str) -> str:
    """Resource name of a project."""
    return f"projects/{project}"


def resource_name(project: str, collection: str, named: str | Adapter | Dataset) -> str:
    """The full name of what a caller calls by its id (`micah`, `micah/versions/2`) or full name, or holds already."""
    name = named if isinstance(named, str) else named.name
    return name if name.startswith("projects/") else f"projects/{project}/{collection}/{name}"


def upload(dataset: str, pictures: Sequence[Picture]) -> Iterator[trainer_pb2.UploadImagesRequest]:
    """An upload's messages: the header, then each picture's announcement and its bytes in chunks."""
    yield trainer_pb2.UploadImagesRequest(header=trainer_pb2.UploadImagesRequest.Header(dataset=dataset))
    for picture in pictures:
        content = picture.content()
        yield trainer_pb2.UploadImagesRequest(
            image=trainer_pb2.UploadImagesRequest.Image(
                filename=picture.filename, size_bytes=len(content), caption=picture.caption
            )
        )
        for start in range(0, len(content), CHUNK_BYTES):
            yield trainer_pb2.UploadImagesRequest(chunk=content[start : start + CHUNK_BYTES])


def training(
    project: str,
    adapter_id: str,
    *,
    new_version: bool,
    base_model: str,
    trigger_word: str,
    class_noun: str,
    licence: str,
    config: TrainingConfig,
) -> trainer_pb2.CreateTrainingRequest:
    """A request for a training of a dataset yet to be named: what is wrong with it shows before pictures are sent."""
    return trainer_pb2.CreateTrainingRequest(
        parent=parent(project),
        training=training_pb2.Training(
            adapter_id=adapter_id,
            base_model=base_model,
            trigger_word=trigger_word,
            class_noun=class_noun,
            config=training_config(config),
            licence=licence,
        ),
        new_version=new_version,
    )


def training_config(config: TrainingConfig) -> training_pb2.TrainingConfig:
    """Hyper-parameters for the wire. Raises InvalidRequest with everything that no field can hold."""
    message = training_pb2.TrainingConfig()
    violations: list[Violation] = []
    for name, value in config.items():
        try:
            if value is not None:
                message.MergeFrom(training_pb2.TrainingConfig(**{name: _field_value(name, value)}))
        except InvalidRequest as error:
            violations.extend(error.violations)
        except ValueError as error:
            # A number that does not fit its field, for example a seed of 2^63.
            violations.append(Violation(name, str(error)))
    if violations:
        raise InvalidRequest(violations)
    return message


def _field_value(name: str, value: Any) -> Any:
    """What the field `name` of TrainingConfig takes for a value of ours."""
    fields = training_pb2.TrainingConfig.DESCRIPTOR.fields_by_name
    if name not in fields:
        raise InvalidRequest([Violation(name, f"no hyper-parameter is called so; there are {', '.join(fields)}")])
    if isinstance(fields[name].default_value, list) and isinstance(value, str):
        # Python would take a text for a list of its letters.
        raise InvalidRequest([Violation(name, f"found {value!r}; allowed is a list of texts")])
    enum = fields[name].enum_type
    return value if enum is None else number(enum, name, value)


def export(name: str, adapter_format: AdapterFormat) -> trainer_pb2.ExportAdapterRequest:
    """A request for an adapter in another program's key names."""
    chosen = number(adapter_pb2.AdapterFormat.DESCRIPTOR, "adapter_format", adapter_format)
    return trainer_pb2.ExportAdapterRequest(name=name, format=adapter_pb2.AdapterFormat.ValueType(chosen))


def generate(
    project: str,
    prompts: str | Sequence[str],
    *,
    adapters: Sequence[AdapterChoice],
    seeds: Seeds | None,
    has_previews: bool,
    options: GenerationOptions,
) -> inference_pb2.GenerateRequest:
    """A request for images. Raises InvalidRequest, and TypeError for options that there are not."""
    if unknown := options.keys() - GenerationOptions.__annotations__.keys():
        raise TypeError(f"generate() got unexpected keyword arguments: {', '.join(sorted(unknown))}")
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    scheduler = options.get("scheduler")
    try:
        return inference_pb2.GenerateRequest(
            project=project,
            base_model=options.get("base_model", ""),
            adapters=[_adapter_weight(project, choice) for choice in adapters],
            prompts=[
                inference_pb2.GenerateRequest.Prompt(text=text, seeds=own)
                for text, own in zip(texts, _seeds_per_prompt(seeds, len(texts)), strict=True)
            ],
            images_per_prompt=options.get("images_per_prompt"),
            negative_prompt=options.get("negative_prompt", ""),
            guidance_scale=options.get("guidance_scale"),
            steps=options.get("steps"),
            scheduler=inference_pb2.Scheduler.ValueType(
                number(inference_pb2.Scheduler.DESCRIPTOR, "scheduler", scheduler) if scheduler else 0
            ),
            width=options.get("width"),
            height=options.get("height"),
            format=inference_pb2.ImageFormat.ValueType(
                number(inference_pb2.ImageFormat.DESCRIPTOR, "image_format", options.get("image_format", "png"))
            ),
            start=start_picture(options.get("start"), options.get("strength"), options.get("mask")),
            delivery=inference_pb2.ImageDelivery.ValueType(
                number(inference_pb2.ImageDelivery.DESCRIPTOR, "delivery", options.get("delivery", "inline"))
            ),
            preview_every=options.get("preview_every", _PREVIEW_EVERY) if has_previews else 0,
        )
    except ValueError as error:
        raise InvalidRequest([Violation("generate", str(error))]) from None


def look_up_image(project: str, image: Image | bytes | str | Path) -> inference_pb2.LookUpImageRequest:
    """A request for the origin of an image, or of a file by its bytes or path. Raises OSError."""
    if isinstance(image, Image):
        digest = image.digest
    else:
        content = image if isinstance(image, bytes) else Path(image).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
    return inference_pb2.LookUpImageRequest(digest=digest, project=project)


def _adapter_weight(project: str, choice: AdapterChoice) -> inference_pb2.AdapterWeight:
    adapter, weight = choice if isinstance(choice, tuple) else (choice, None)
    return inference_pb2.AdapterWeight(adapter=resource_name(project, "adapters", adapter), weight=weight)


def _seeds_per_prompt(seeds: Seeds | None, prompt_count: int) -> list[list[int]]:
    if not seeds:
        return [[] for _ in range(prompt_count)]
    if isinstance(seeds[0], int):
        return [list(cast(Sequence[int], seeds)) for _ in range(prompt_count)]
    if len(seeds) != prompt_count:
        found = f"found seeds for {len(seeds)} prompts; allowed are one list for all, or one for each of {prompt_count}"
        raise InvalidRequest([Violation("seeds", found)])
    return [list(own) for own in cast(Sequence[Sequence[int]], seeds)]


def rest_of(
    asked: inference_pb2.GenerateRequest,
    effective: inference_pb2.GenerateRequest,
    missing: Sequence[tuple[int, int]],
) -> inference_pb2.GenerateRequest:
    """The request for what a cut stream did not bring.

    asked: the request as it was first sent.
    effective: the request as the server completed it, with adapter versions, defaults and seeds.
    missing: (prompt index, seed) of each image still wanted, in the order of their indices; the answer counts so too.
    """
    rest = inference_pb2.GenerateRequest()
    rest.CopyFrom(effective)
    if asked.HasField("start"):
        # The server repeats its settings, but not the picture's bytes.
        rest.start.MergeFrom(asked.start)
    del rest.prompts[:]
    for prompt_index in sorted({prompt_index for prompt_index, _ in missing}):
        rest.prompts.add(
            text=effective.prompts[prompt_index].text,
            seeds=[seed for wanted, seed in missing if wanted == prompt_index],
        )
    return rest
