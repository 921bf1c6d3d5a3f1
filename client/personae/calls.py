"""Each call that has one answer, as a value: which rpc, what to send, what the answer means. Nothing is sent here.

All of them are safe to repeat: reads, derivations, or mutations that carry one and the same `request_id` each time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast
from uuid import uuid4

from google.protobuf.message import Message

from personae import requests, routing, wire
from personae.errors import InvalidRequest, Violation
from personae.images import Image, ImageOrigin, MadeImage
from personae.pictures import Picture, Sources
from personae.resources import (
    Adapter,
    Consent,
    Dataset,
    ExportedAdapter,
    ServedAdapter,
    ServedBaseModel,
    TrainingPlan,
    TrainingRecord,
)
from personae.v1 import dataset_pb2, inference_pb2, trainer_pb2
from personae.vocabulary import AdapterFormat

T = TypeVar("T")
Page = tuple[Iterable[T], str]
"""Entries of a listing, and the token of the next page; empty after the last."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """A call whose request is one message."""

    rpc: str
    request: Message
    translate: Callable[[Any], T]
    routing_key: str = ""
    """As that of a Stream."""


@dataclass(frozen=True)
class Upload(Generic[T]):
    """A call whose request is a stream; `messages` begins it again for every try."""

    rpc: str
    messages: Callable[[], Iterator[Message]]
    translate: Callable[[Any], T]


def create_dataset(project: str, dataset_id: str, consent: Consent | None) -> Call[Dataset]:
    """Makes an empty dataset."""
    request = trainer_pb2.CreateDatasetRequest(
        parent=requests.parent(project),
        dataset_id=dataset_id,
        request_id=str(uuid4()),
        consent=dataset_pb2.Consent(**asdict(consent)) if consent else None,
    )
    return Call("CreateDataset", request, lambda answer: wire.dataset(answer.dataset))


def upload_images(dataset: str, pictures: Sequence[Picture]) -> Upload[Dataset]:
    """Adds pictures. It needs no request id, because a stored picture is not stored twice."""
    return Upload(
        "UploadImages", lambda: requests.upload(dataset, pictures), lambda answer: wire.dataset(answer.dataset)
    )


def get_dataset(name: str) -> Call[Dataset]:
    """Reads a dataset, by its full name, with its full report."""
    request = trainer_pb2.GetDatasetRequest(name=name)
    return Call("GetDataset", request, lambda answer: wire.dataset(answer.dataset))


def list_datasets(project: str, token: str) -> Call[Page[Dataset]]:
    """Reads a page of datasets."""
    request = trainer_pb2.ListDatasetsRequest(parent=requests.parent(project), page_token=token)
    return Call("ListDatasets", request, lambda answer: (map(wire.dataset, answer.datasets), answer.next_page_token))


def dataset_or_pictures(given: Dataset | Sources, consent: Consent | None) -> tuple[str, Sources]:
    """What `train` was given: the name of a dataset, or the pictures to make one of; the other is empty.

    Raises InvalidRequest where a consent comes with a dataset that exists already.
    """
    name = given.name if isinstance(given, Dataset) else given
    if not (isinstance(name, str) and name.startswith("projects/")):
        return "", cast(Sources, given)
    if consent is not None:
        description = f"found one beside {name}, which has its own or none; allowed with pictures, or in create_dataset"
        raise InvalidRequest([Violation("consent", description)])
    return name, ()


def create_training(wanted: trainer_pb2.CreateTrainingRequest, dataset: str) -> Call[TrainingRecord]:
    """Queues the training that is wanted, of the dataset with that full name."""
    request = _of_dataset(wanted, dataset)
    request.request_id = str(uuid4())
    return Call("CreateTraining", request, lambda answer: wire.training(answer.training))


def plan_training(wanted: trainer_pb2.CreateTrainingRequest, dataset: str) -> Call[TrainingPlan]:
    """Asks what that training would be, and creates none."""
    request = _of_dataset(wanted, dataset)
    request.validate_only = True
    return Call("CreateTraining", request, wire.training_plan)


def _of_dataset(wanted: trainer_pb2.CreateTrainingRequest, dataset: str) -> trainer_pb2.CreateTrainingRequest:
    request = trainer_pb2.CreateTrainingRequest()
    request.CopyFrom(wanted)
    request.training.dataset = dataset
    return request


def get_training(name: str) -> Call[TrainingRecord]:
    """Reads a training's record, by its full name."""
    request = trainer_pb2.GetTrainingRequest(name=name)
    return Call("GetTraining", request, lambda answer: wire.training(answer.training))


def list_trainings(project: str, token: str) -> Call[Page[TrainingRecord]]:
    """Reads a page of trainings."""
    request = trainer_pb2.ListTrainingsRequest(parent=requests.parent(project), page_token=token)
    return Call("ListTrainings", request, lambda answer: (map(wire.training, answer.trainings), answer.next_page_token))


def cancel_training(name: str) -> Call[TrainingRecord]:
    """Asks a training, by its full name, to stop."""
    request = trainer_pb2.CancelTrainingRequest(name=name)
    return Call("CancelTraining", request, lambda answer: wire.training(answer.training))


def get_adapter(name: str) -> Call[Adapter]:
    """Reads an adapter by its full name: the latest version where it names none."""
    request = trainer_pb2.GetAdapterRequest(name=name)
    return Call("GetAdapter", request, lambda answer: wire.adapter(answer.adapter))


def list_adapters(parent: str, token: str) -> Call[Page[Adapter]]:
    """Reads a page of a project's adapters, or of an adapter's versions."""
    request = trainer_pb2.ListAdaptersRequest(parent=parent, page_token=token)
    return Call("ListAdapters", request, lambda answer: (map(wire.adapter, answer.adapters), answer.next_page_token))


def delete_dataset(name: str) -> Call[None]:
    """Deletes a dataset, by its full name."""
    return Call("DeleteDataset", trainer_pb2.DeleteDatasetRequest(name=name, request_id=str(uuid4())), _nothing)


def delete_training(name: str) -> Call[None]:
    """Deletes a training, by its full name."""
    return Call("DeleteTraining", trainer_pb2.DeleteTrainingRequest(name=name, request_id=str(uuid4())), _nothing)


def delete_adapter(name: str) -> Call[None]:
    """Deletes an adapter, by its full name: every version where it names none."""
    return Call("DeleteAdapter", trainer_pb2.DeleteAdapterRequest(name=name, request_id=str(uuid4())), _nothing)


def _nothing(answer: object) -> None:
    """That it was answered is all there is to know."""


def list_images(parent: str, token: str) -> Call[Page[MadeImage]]:
    """Reads a page of the images that an adapter version or a dataset made."""
    request = inference_pb2.ListImagesRequest(parent=parent, page_token=token)
    return Call("ListImages", request, lambda answer: (map(wire.made_image, answer.images), answer.next_page_token))


def preload_adapter(name: str, pinned: bool) -> Call[ServedAdapter]:
    """Brings an adapter, by its full name, into the inference server's memory."""
    request = inference_pb2.PreloadAdapterRequest(adapter=name, pinned=pinned)
    return Call(
        "PreloadAdapter", request, lambda answer: wire.served_adapter(answer.adapter), routing_key=routing.key([name])
    )


def list_served_adapters(token: str) -> Call[Page[ServedAdapter]]:
    """Reads a page of the adapters that the inference server holds."""
    request = inference_pb2.ListServedAdaptersRequest(page_token=token)
    return Call(
        "ListServedAdapters",
        request,
        lambda answer: (map(wire.served_adapter, answer.adapters), answer.next_page_token),
        # Only the server that gave the token knows the next page.
        routing_key="ListServedAdapters",
    )


def get_serving_info() -> Call[tuple[ServedBaseModel, ...]]:
    """Asks which base models the inference server draws with."""
    request = inference_pb2.GetServingInfoRequest()
    return Call("GetServingInfo", request, lambda answer: tuple(map(wire.served_base_model, answer.base_models)))


def export_adapter(name: str, adapter_format: AdapterFormat) -> Call[ExportedAdapter]:
    """Derives a file of an adapter, by its full name; asked twice, it is derived once."""
    return Call("ExportAdapter", requests.export(name, adapter_format), wire.exported_adapter)


def look_up_image(project: str, image: Image | bytes | str | Path) -> Call[ImageOrigin]:
    """Asks where an image came from; the file is hashed here and not sent."""
    return Call("LookUpImage", requests.look_up_image(project, image), wire.image_origin)


class Sending(Iterator[Message]):
    """The messages of one try of an upload. gRPC hides what goes wrong while it reads them; this keeps it."""

    def __init__(self, messages: Iterator[Message]) -> None:
        self._messages = messages
        self.failure: OSError | None = None
        """What this machine could not read."""

    def __next__(self) -> Message:
        try:
            return next(self._messages)
        except OSError as failure:
            self.failure = failure
            raise
