"""Small services for the client's tests: real gRPC on a loopback port, scripted failures, and no work behind them."""

import hashlib
import io
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from deleting_fakes import FakeDeletion
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from PIL import Image

from personae.v1 import (
    adapter_pb2,
    dataset_pb2,
    evaluation_pb2,
    trainer_pb2,
    trainer_pb2_grpc,
    training_pb2,
)

TRAINING = "projects/default/trainings/t1"
ADAPTER = "projects/default/adapters/micah/versions/1"
WEIGHTS = bytes(range(256)) * 20


def fail(context: grpc.ServicerContext, code: grpc.StatusCode, message: str, *details: Any) -> None:
    """End the call with a status and google.rpc details."""
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    context.abort_with_status(rpc_status.to_status(status))


def retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    return error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=int(seconds * 1e9)))


def progress(sequence: int) -> training_pb2.TrainingEvent:
    step = training_pb2.TrainingEvent.Progress(stage=training_pb2.STAGE_STEPPING, completed=sequence, total=9, loss=0.5)
    return training_pb2.TrainingEvent(sequence=sequence, progress=step)


def evaluation() -> evaluation_pb2.Evaluation:
    """One that tells nothing of diversity."""
    return evaluation_pb2.Evaluation(judge="eye-1", likeness=0.71, obedience=0.0, memorisation=0.8)


def evaluated(sequence: int) -> training_pb2.TrainingEvent:
    found = training_pb2.TrainingEvent.Evaluated(evaluation=evaluation())
    return training_pb2.TrainingEvent(sequence=sequence, evaluated=found)


def validated(sequence: int, step: int, loss: float, best: bool) -> training_pb2.TrainingEvent:
    found = training_pb2.TrainingEvent.Validated(step=step, loss=loss, best=best)
    return training_pb2.TrainingEvent(sequence=sequence, validated=found)


def sample_ready(sequence: int, step: int, **measured: float) -> training_pb2.TrainingEvent:
    drawn = training_pb2.TrainingEvent.SampleReady(
        step=step, prompt="a cat", seed=7, content=png(), artifact_id=f"samples/{step:06d}-0.png", **measured
    )
    return training_pb2.TrainingEvent(sequence=sequence, sample_ready=drawn)


def png() -> bytes:
    """A red picture of 3 x 2 pixels."""
    file = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(file, "PNG")
    return file.getvalue()


def ended(sequence: int, state: str = "SUCCEEDED", **failure: str) -> training_pb2.TrainingEvent:
    end = training_pb2.TrainingEvent.Ended(
        state=training_pb2.Training.State.Value(f"STATE_{state}"),
        adapter=ADAPTER if state == "SUCCEEDED" else "",
        failure=training_pb2.TrainingFailure(**failure) if failure else None,
    )
    return training_pb2.TrainingEvent(sequence=sequence, ended=end)


class Fake:
    """What both services have: the requests they saw, and for each call what to do instead of answering, once each."""

    def __init__(self) -> None:
        self.requests: dict[str, list[Any]] = defaultdict(list)
        self.instead: dict[str, list[Callable[[grpc.ServicerContext], None]]] = defaultdict(list)
        self.closing = threading.Event()

    def saw(self, call: str, request: Any, context: grpc.ServicerContext) -> None:
        self.requests[call].append(request)
        if self.instead[call]:
            self.instead[call].pop(0)(context)

    def fall_silent(self, context: grpc.ServicerContext) -> None:
        """Say nothing until the caller has gone."""
        if not context.add_callback(self.closing.set):
            return
        self.closing.wait(20)
        self.closing.clear()


def unavailable(*details: Any) -> Callable[[grpc.ServicerContext], None]:
    return lambda context: fail(context, grpc.StatusCode.UNAVAILABLE, "restarting", *details)


class FakeTrainer(Fake, FakeDeletion, trainer_pb2_grpc.TrainerServiceServicer):
    """Keeps one training and one adapter; `cut_after` holds the sequences after which a watch breaks, once each.

    `watch_over` is set once a watch has ended, by whichever side.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: list[training_pb2.TrainingEvent] = []
        self.cut_after: list[int] = []
        self.silent_after: list[int] = []
        self.quiet_heartbeats = 0
        self.download_cuts: list[int] = []
        self.digest = ""
        self.pages: list[list[str]] = [[]]
        self.watch_over = threading.Event()
        self.adapter = adapter_pb2.Adapter(trigger_word="sks", class_noun="character")
        self.plan = trainer_pb2.CreateTrainingResponse()
        self.files = {"": WEIGHTS}
        self.training = training_pb2.Training(name=TRAINING, state=training_pb2.Training.STATE_QUEUED)

    def CreateDataset(self, request, context):
        self.saw("CreateDataset", request, context)
        name = f"{request.parent}/datasets/{request.dataset_id or 'd1'}"
        return trainer_pb2.CreateDatasetResponse(dataset=dataset_pb2.Dataset(name=name))

    def UploadImages(self, request_iterator, context):
        messages = list(request_iterator)
        self.saw("UploadImages", messages, context)
        announced = [message.image for message in messages if message.WhichOneof("part") == "image"]
        images = [
            dataset_pb2.ImageReport(
                filename=image.filename,
                accepted=not image.filename.startswith("broken"),
                rejection=dataset_pb2.ImageReport.REJECTION_TRUNCATED if image.filename.startswith("broken") else 0,
                detail="the file ends early" if image.filename.startswith("broken") else "",
                caption=image.caption,
            )
            for image in announced
        ]
        report = dataset_pb2.DatasetReport(
            verdict=dataset_pb2.DatasetReport.VERDICT_READY,
            accepted_count=sum(image.accepted for image in images),
            images=images,
        )
        dataset = dataset_pb2.Dataset(name=messages[0].header.dataset, report=report)
        return trainer_pb2.UploadImagesResponse(dataset=dataset)

    def GetDataset(self, request, context):
        self.saw("GetDataset", request, context)
        image = dataset_pb2.ImageReport(filename="a.png", accepted=True, warnings=[1, 2], has_mask=True)
        return trainer_pb2.GetDatasetResponse(
            dataset=dataset_pb2.Dataset(name=request.name, report=dataset_pb2.DatasetReport(images=[image]))
        )

    def ListDatasets(self, request, context):
        self.saw("ListDatasets", request, context)
        page = int(request.page_token or 0)
        following = str(page + 1) if page + 1 < len(self.pages) else ""
        datasets = [dataset_pb2.Dataset(name=name) for name in self.pages[page]]
        return trainer_pb2.ListDatasetsResponse(datasets=datasets, next_page_token=following)

    def CreateTraining(self, request, context):
        self.saw("CreateTraining", request, context)
        return self.plan if request.validate_only else trainer_pb2.CreateTrainingResponse(training=self.training)

    def GetTraining(self, request, context):
        self.saw("GetTraining", request, context)
        return trainer_pb2.GetTrainingResponse(training=self.training)

    def CancelTraining(self, request, context):
        self.saw("CancelTraining", request, context)
        return trainer_pb2.CancelTrainingResponse(training=self.training)

    def WatchTraining(self, request, context):
        self.saw("WatchTraining", request, context)
        context.add_callback(self.watch_over.set)
        for _ in range(self.quiet_heartbeats):
            self.closing.wait(0.1)
            yield trainer_pb2.WatchTrainingResponse(heartbeat=trainer_pb2.WatchTrainingResponse.Heartbeat())
        for event in self.events:
            if event.sequence <= request.after_sequence:
                continue
            yield trainer_pb2.WatchTrainingResponse(event=event)
            if event.sequence in self.cut_after:
                self.cut_after.remove(event.sequence)
                fail(context, grpc.StatusCode.UNAVAILABLE, "Cancelling all calls")
            if event.sequence in self.silent_after:
                self.silent_after.remove(event.sequence)
                self.fall_silent(context)

    def GetAdapter(self, request, context):
        self.saw("GetAdapter", request, context)
        return trainer_pb2.GetAdapterResponse(adapter=self._adapter(request.name))

    def ListAdapters(self, request, context):
        self.saw("ListAdapters", request, context)
        return trainer_pb2.ListAdaptersResponse(adapters=[self._adapter(ADAPTER)])

    def _adapter(self, name: str) -> adapter_pb2.Adapter:
        adapter = adapter_pb2.Adapter(name=name)
        adapter.MergeFrom(self.adapter)
        return adapter

    def ExportAdapter(self, request, context):
        self.saw("ExportAdapter", request, context)
        return trainer_pb2.ExportAdapterResponse(
            adapter=ADAPTER,
            artifact=adapter_pb2.Artifact(artifact_id="exports/adapter"),
            model_card=adapter_pb2.Artifact(artifact_id="exports/card"),
        )

    def ImportAdapter(self, request_iterator, context):
        messages = list(request_iterator)
        self.saw("ImportAdapter", messages, context)
        return trainer_pb2.ImportAdapterResponse(adapter=self._adapter(ADAPTER))

    def ReadArtifact(self, request, context):
        self.saw("ReadArtifact", request, context)
        if request.artifact_id not in self.files:
            fail(context, grpc.StatusCode.NOT_FOUND, f"{request.adapter} has no {request.artifact_id}")
        content = self.files[request.artifact_id]
        artifact = adapter_pb2.Artifact(
            artifact_id=request.artifact_id or "adapter.safetensors",
            size_bytes=len(content),
            digest=self.digest or hashlib.sha256(content).hexdigest(),
        )
        yield trainer_pb2.ReadArtifactResponse(
            header=trainer_pb2.ReadArtifactResponse.Header(adapter=ADAPTER, artifact=artifact)
        )
        for start in range(request.read_offset, len(content), 1000):
            yield trainer_pb2.ReadArtifactResponse(chunk=content[start : start + 1000])
            if start in self.download_cuts:
                self.download_cuts.remove(start)
                fail(context, grpc.StatusCode.UNAVAILABLE, "restarting")


@contextmanager
def served(add: Callable[[Any, grpc.Server], None], service: Fake) -> Iterator[str]:
    """The address of a server that runs `service`."""
    server = grpc.server(ThreadPoolExecutor(8))
    add(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        service.closing.set()
        server.stop(None).wait()


def sequences(events: Sequence[Any]) -> list[int]:
    return [event.sequence for event in events]
