"""What a TrainerService answers to bad requests over the wire, and that it goes on serving the good ones."""

import math
import uuid
from collections.abc import Callable, Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from personae.v1 import adapter_pb2, dataset_pb2, trainer_pb2_grpc, training_pb2
from personae.v1 import trainer_pb2 as pb
from tests.integration.trainer_calls import CALL_S, TrainerCalls, bundled_files, details, unique, upload_messages
from tests.service_process import ServiceProcess

Code = grpc.StatusCode
Upload = pb.UploadImagesRequest


def train(dataset: str = "projects/default/datasets/none", **changes: object) -> pb.CreateTrainingRequest:
    request: dict[str, object] = {key: changes.pop(key) for key in ("request_id", "parent") if key in changes}
    training = {"dataset": dataset, "adapter_id": "cat"} | changes
    return pb.CreateTrainingRequest(training=training_pb2.Training(**training), **request)


BAD_CONFIG = training_pb2.TrainingConfig(
    steps=0, rank=-1, learning_rate=math.nan, batch_size=10_000, resolution=65, checkpoint_every=10**9
)
CASES: dict[str, tuple[str, object, Code, str, set[str]]] = {
    "a dataset that does not exist": (
        "GetDataset",
        pb.GetDatasetRequest(name="projects/default/datasets/none"),
        Code.NOT_FOUND,
        "NOT_FOUND",
        set(),
    ),
    "a consent of nobody for too much": (
        "CreateDataset",
        pb.CreateDatasetRequest(consent=dataset_pb2.Consent(purpose="p" * 501)),
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        {"consent.given_by", "consent.purpose"},
    ),
    "a dataset of another project": (
        "GetDataset",
        pb.GetDatasetRequest(name="projects/other/datasets/none"),
        Code.NOT_FOUND,
        "NOT_FOUND",
        set(),
    ),
    "a training that does not exist": (
        "GetTraining",
        pb.GetTrainingRequest(name="projects/default/trainings/none"),
        Code.NOT_FOUND,
        "NOT_FOUND",
        set(),
    ),
    "an adapter that does not exist": (
        "GetAdapter",
        pb.GetAdapterRequest(name="projects/default/adapters/none"),
        Code.NOT_FOUND,
        "NOT_FOUND",
        set(),
    ),
    "a version that does not exist": (
        "GetAdapter",
        pb.GetAdapterRequest(name="projects/default/adapters/none/versions/9"),
        Code.NOT_FOUND,
        "NOT_FOUND",
        set(),
    ),
    "an id that climbs": (
        "GetDataset",
        pb.GetDatasetRequest(name="projects/default/datasets/../x"),
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        {"name"},
    ),
    "an empty name": ("GetTraining", pb.GetTrainingRequest(), Code.INVALID_ARGUMENT, "INVALID_REQUEST", {"name"}),
    "a version of zero": (
        "GetAdapter",
        pb.GetAdapterRequest(name="projects/default/adapters/a/versions/0"),
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        {"name"},
    ),
    "a page of minus one": (
        "ListTrainings",
        pb.ListTrainingsRequest(page_size=-1, page_token="../"),
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        {"page_size", "page_token"},
    ),
    "a training on nothing": ("CreateTraining", train(), Code.NOT_FOUND, "NOT_FOUND", set()),
    "a base model that is not allowed": (
        "CreateTraining",
        train(base_model="attacker/repo"),
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        {"training.base_model"},
    ),
    "hyper-parameters out of range": (
        "CreateTraining",
        train(config=BAD_CONFIG),
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        {
            f"training.config.{name}"
            for name in ("steps", "rank", "learning_rate", "batch_size", "resolution", "checkpoint_every")
        },
    ),
    "a request_id that is no UUID": (
        "CreateTraining",
        train(request_id="7"),
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        {"request_id"},
    ),
    "an export of an adapter that does not exist": (
        "ExportAdapter",
        pb.ExportAdapterRequest(name="projects/default/adapters/none", format=adapter_pb2.ADAPTER_FORMAT_KOHYA),
        Code.NOT_FOUND,
        "NOT_FOUND",
        set(),
    ),
    "an export of no name in no format": (
        "ExportAdapter",
        pb.ExportAdapterRequest(),
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        {"name", "format"},
    ),
}


@pytest.fixture(autouse=True)
def serves_on(trainer_process: ServiceProcess, trainer: TrainerCalls) -> Iterator[None]:
    """After each bad request the service is SERVING, and a good one succeeds."""
    yield
    with grpc.insecure_channel(trainer_process.health_address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(service="personae.v1.TrainerService"), timeout=CALL_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    trainer.stub.CreateDataset(pb.CreateDatasetRequest(), timeout=CALL_S)


def refused(call: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("case", CASES)
def test_a_bad_request_gets_its_status_its_reason_and_every_field(trainer: TrainerCalls, case: str) -> None:
    rpc, request, code, reason, fields = CASES[case]
    error = refused(lambda: getattr(trainer.stub, rpc)(request, timeout=CALL_S))
    assert error.code() is code
    found_reason, found_fields = details(error)
    assert (found_reason, set(found_fields)) == (reason, fields)
    assert "Traceback" not in error.details()


@pytest.mark.parametrize("bad_id", ["../x", "/abs", "a//b", "%2e%2e", "a\0b", "a\nb", "A", "a" * 1025])
def test_ids_that_could_escape_are_refused_with_the_pattern(trainer: TrainerCalls, bad_id: str) -> None:
    error = refused(lambda: trainer.stub.CreateDataset(pb.CreateDatasetRequest(dataset_id=bad_id), timeout=CALL_S))
    assert error.code() is Code.INVALID_ARGUMENT
    assert "^[a-z0-9][a-z0-9-]{0,62}$" in error.details()


def test_a_training_without_pictures_is_refused_and_says_how_many_are_needed(trainer: TrainerCalls) -> None:
    empty = trainer.stub.CreateDataset(pb.CreateDatasetRequest(dataset_id=unique("empty")), timeout=CALL_S).dataset
    error = refused(lambda: trainer.stub.CreateTraining(train(empty.name), timeout=CALL_S))
    assert (error.code(), details(error)[0]) == (Code.FAILED_PRECONDITION, "DATASET_NOT_READY")
    assert "0 usable pictures; a training starts with 3" in error.details()


def test_one_broken_picture_among_sixteen_is_reported_and_the_training_runs_on_fifteen(trainer: TrainerCalls) -> None:
    files = bundled_files()
    files["07.png"] = files["07.png"][:500]
    dataset = trainer.stub.CreateDataset(pb.CreateDatasetRequest(dataset_id=unique("broken")), timeout=CALL_S).dataset
    report = trainer.stub.UploadImages(upload_messages(dataset.name, files), timeout=CALL_S).dataset.report
    assert (report.accepted_count, report.rejected_count) == (15, 1)
    (broken,) = [image for image in report.images if not image.accepted]
    assert (broken.filename, broken.rejection) == ("07.png", dataset_pb2.ImageReport.REJECTION_TRUNCATED)
    assert broken.detail
    ended = trainer.finish(trainer.train(dataset.name, steps=2).name)
    assert ended.state == training_pb2.Training.State.STATE_SUCCEEDED


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [Upload(chunk=b"x")],
        [Upload()],
        [Upload(image=Upload.Image(filename="a.png", size_bytes=3))],
    ],
)
def test_an_upload_out_of_order_is_refused(trainer: TrainerCalls, messages: list[Upload]) -> None:
    error = refused(lambda: trainer.stub.UploadImages(iter(messages), timeout=CALL_S))
    assert error.code() is Code.INVALID_ARGUMENT


def test_an_upload_that_its_client_abandons_leaves_nothing(trainer: TrainerCalls) -> None:
    name = trainer.stub.CreateDataset(pb.CreateDatasetRequest(dataset_id=unique("gone")), timeout=CALL_S).dataset.name
    messages = list(upload_messages(name, bundled_files(5)))

    def half() -> Iterator[Upload]:
        yield from messages[:-1]
        raise ConnectionError

    refused(lambda: trainer.stub.UploadImages(half(), timeout=CALL_S))
    report = trainer.stub.GetDataset(pb.GetDatasetRequest(name=name), timeout=CALL_S).dataset.report
    assert (report.accepted_count, len(report.images)) == (0, 0)


def test_fifty_equal_submits_at_once_give_fifty_equal_answers(
    trainer: TrainerCalls, trainer_process: ServiceProcess
) -> None:
    request = train(trainer.dataset(3), adapter_id=unique("fifty"), request_id=str(uuid.uuid4()))
    request.training.config.steps = 1
    with grpc.insecure_channel(trainer_process.address) as channel:
        stub = trainer_pb2_grpc.TrainerServiceStub(channel)
        calls = [stub.CreateTraining.future(request, timeout=CALL_S) for _ in range(50)]
        names = {call.result().training.name for call in calls}
    assert len(names) == 1
    other = pb.CreateTrainingRequest.FromString(request.SerializeToString())
    other.training.config.steps = 2
    error = refused(lambda: trainer.stub.CreateTraining(other, timeout=CALL_S))
    assert (error.code(), details(error)[0]) == (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    trainer.finish(names.pop())
