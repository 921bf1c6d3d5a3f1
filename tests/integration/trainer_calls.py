"""Calls to a TrainerService over its stub, as a backend in another language would make them."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from base_models.catalog import BUNDLED
from personae.v1 import dataset_pb2, trainer_pb2_grpc, training_pb2
from personae.v1 import trainer_pb2 as pb

BUNDLED_SET = Path(__file__).parents[2] / "base_models" / "toon_64" / "sets" / "micah-b" / "train"
CALL_S = 60.0
MAX_CHUNK_BYTES = 1024 * 1024
UNJUDGED = {"PERSONAE_BASE_MODELS": f"plain={BUNDLED['toon-64']}"}
"""Settings of a service whose only base model is the bundled one without its judge: judging takes most of the time."""
UNJUDGED_CONFIG = {"seed": 7, "batch_size": 1, "rank": 2, "precision": training_pb2.PRECISION_FLOAT32}


def upload_messages(dataset: str, files: dict[str, bytes]) -> Iterator[pb.UploadImagesRequest]:
    """The messages of an upload; the pictures have no captions."""
    yield pb.UploadImagesRequest(header=pb.UploadImagesRequest.Header(dataset=dataset))
    for filename, body in files.items():
        yield pb.UploadImagesRequest(image=pb.UploadImagesRequest.Image(filename=filename, size_bytes=len(body)))
        for start in range(0, len(body), MAX_CHUNK_BYTES):
            yield pb.UploadImagesRequest(chunk=body[start : start + MAX_CHUNK_BYTES])


def bundled_files(count: int = 16) -> dict[str, bytes]:
    """The first bundled pictures, by name."""
    return {path.name: path.read_bytes() for path in sorted(BUNDLED_SET.glob("*.png"))[:count]}


def unique(stem: str) -> str:
    """An id that no other test uses."""
    return f"{stem}-{uuid.uuid4().hex[:10]}"


def event_kinds(events: list[training_pb2.TrainingEvent]) -> list[str]:
    """What happened, by name."""
    return [event.WhichOneof("kind") for event in events]


def details(error: grpc.RpcError) -> tuple[str, list[str]]:
    """An error's stable reason, and the fields it names."""
    status = rpc_status.from_call(error)
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        for kind in (info, bad_request):
            if detail.Is(kind.DESCRIPTOR):
                detail.Unpack(kind)
    return info.reason, [violation.field for violation in bad_request.field_violations]


@dataclass
class TrainerCalls:
    """The calls of a test."""

    stub: trainer_pb2_grpc.TrainerServiceStub

    def dataset(self, count: int = 16, consent: dataset_pb2.Consent | None = None) -> str:
        """A new dataset of bundled pictures."""
        request = pb.CreateDatasetRequest(dataset_id=unique("dataset"), consent=consent)
        created = self.stub.CreateDataset(request, timeout=CALL_S)
        self.stub.UploadImages(upload_messages(created.dataset.name, bundled_files(count)), timeout=CALL_S)
        return created.dataset.name

    def train(
        self, dataset: str, adapter_id: str = "", request_id: str = "", **config: object
    ) -> training_pb2.Training:
        """A new training, without samples unless they are asked for."""
        training = training_pb2.Training(
            dataset=dataset,
            adapter_id=adapter_id or unique("adapter"),
            config=training_pb2.TrainingConfig(**{"sample_every": 0} | config),
        )
        request = pb.CreateTrainingRequest(training=training, request_id=request_id)
        return self.stub.CreateTraining(request, timeout=CALL_S).training

    def events(self, name: str, after: int = 0, timeout_s: float = 300.0) -> Iterator[training_pb2.TrainingEvent]:
        """A training's events, heartbeats left out."""
        for message in self.stub.WatchTraining(
            pb.WatchTrainingRequest(name=name, after_sequence=after), timeout=timeout_s
        ):
            if message.WhichOneof("kind") == "event":
                yield message.event

    def finish(self, name: str) -> training_pb2.TrainingEvent.Ended:
        """Wait for a training's end."""
        return list(self.events(name))[-1].ended

    def adapter_file(self, name: str) -> bytes:
        """The bytes of an adapter's file."""
        messages = self.stub.ReadArtifact(pb.ReadArtifactRequest(adapter=name), timeout=CALL_S)
        return b"".join(message.chunk for message in messages if message.WhichOneof("part") == "chunk")
