"""Who may ask the trainer service for what, over a real port: roles, projects, and missing and foreign told alike."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from personae.v1 import adapter_pb2, trainer_pb2_grpc, training_pb2
from personae.v1 import trainer_pb2 as pb
from service_kit.error_status import ErrorInterceptor
from service_kit.names import AdapterVersionName
from tests.bucket_adapters import publish
from tests.identities import bearer, interceptor, listed
from tests.unit.trainer.served_trainer import trainer_servicer
from tests.unit.trainer.trainer_fakes import Trainer, bundled, request
from trainer_service.request_id import derived_id
from trainer_service.trainings import Trainings

PATIENCE_S = 20.0
ENTRIES = (
    listed("trainer", ["trainer"], ["default"]),
    listed("looker", ["viewer"], ["default"]),
    listed("drawer", ["generator"], ["default"]),
    listed("boss", ["operator"], ["*"]),
)
SERVICE = pb.DESCRIPTOR.services_by_name["TrainerService"]
TRAINING_REQUEST = "b3c1b2a0-5b1e-4a52-9f3f-0b8d1f0e7a11"
Code = grpc.StatusCode
Refusal = tuple[grpc.StatusCode, str | None, object]


@asynccontextmanager
async def serving(trainer: Trainer, folder: Path, most: int = 0) -> AsyncIterator[Any]:
    """A stub to the service on the trainer's bucket. Nobody carries out its trainings."""
    trainings = Trainings(
        trainer.store, trainer.datasets, trainer.base_models, lambda entry, prompt: 1, trainer.clock, most
    )
    servicer = trainer_servicer(trainer, trainings)
    server = grpc.aio.server(interceptors=[ErrorInterceptor(), interceptor(folder / "tokens.json", *ENTRIES)])
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield trainer_pb2_grpc.TrainerServiceStub(channel)
    await server.stop(0)


def run(scenario: Callable[[Any], Awaitable[None]], trainer: Trainer, folder: Path, most: int = 0) -> None:
    """Run a scenario against the service."""

    async def serve() -> None:
        async with serving(trainer, folder, most) as stub:
            await scenario(stub)

    asyncio.run(asyncio.wait_for(serve(), 3 * PATIENCE_S))


async def call(stub: Any, rpc: str, message: Message, name: str) -> list[Any]:
    """The answers to a call by an identity."""
    metadata = bearer(name) if name else ()
    if SERVICE.methods_by_name[rpc].client_streaming:
        return [await getattr(stub, rpc)(iter([message]), timeout=PATIENCE_S, metadata=metadata)]
    calling = getattr(stub, rpc)(message, timeout=PATIENCE_S, metadata=metadata)
    is_stream = SERVICE.methods_by_name[rpc].server_streaming
    return [answer async for answer in calling] if is_stream else [await calling]


async def refused(stub: Any, rpc: str, message: Message, name: str) -> Refusal:
    """Everything that the caller sees of a refusal."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(stub, rpc, message, name)
    return caught.value.code(), caught.value.details(), tuple(caught.value.trailing_metadata() or ())


def upload_to(dataset: str) -> pb.UploadImagesRequest:
    return pb.UploadImagesRequest(header=pb.UploadImagesRequest.Header(dataset=dataset))


def import_into(project: str) -> pb.ImportAdapterRequest:
    header = pb.ImportAdapterRequest.Header(parent=project, adapter_id="new", base_model="toon-64")
    return pb.ImportAdapterRequest(header=header)


def asks_of(project: str) -> Iterator[tuple[str, Message]]:
    """A request of every rpc that names a dataset, a training or an adapter, for those of a project."""
    of = f"projects/{project}"
    dataset, adapter = f"{of}/datasets/cat", f"{of}/adapters/cat"
    training = f"{of}/trainings/{derived_id('training', project, TRAINING_REQUEST)}"
    yield "UploadImages", upload_to(dataset)
    yield "GetDataset", pb.GetDatasetRequest(name=dataset)
    yield "DeleteDataset", pb.DeleteDatasetRequest(name=dataset)
    wanted = training_pb2.Training(dataset=dataset, adapter_id="new")
    yield "CreateTraining", pb.CreateTrainingRequest(parent=of, training=wanted)
    yield "GetTraining", pb.GetTrainingRequest(name=training)
    yield "CancelTraining", pb.CancelTrainingRequest(name=training)
    yield "WatchTraining", pb.WatchTrainingRequest(name=training)
    yield "DeleteTraining", pb.DeleteTrainingRequest(name=training)
    for name in (adapter, f"{adapter}/versions/1"):
        yield "GetAdapter", pb.GetAdapterRequest(name=name)
        yield "ExportAdapter", pb.ExportAdapterRequest(name=name, format=adapter_pb2.ADAPTER_FORMAT_KOHYA)
        yield "ReadArtifact", pb.ReadArtifactRequest(adapter=name)
        yield "DeleteAdapter", pb.DeleteAdapterRequest(name=name)


def asks_in(project: str) -> Iterator[tuple[str, Message]]:
    """A request of every rpc that names a project, or what needs not exist, for one."""
    of = f"projects/{project}"
    yield "CreateDataset", pb.CreateDatasetRequest(parent=of, dataset_id="x")
    yield "ListDatasets", pb.ListDatasetsRequest(parent=of)
    yield "ListTrainings", pb.ListTrainingsRequest(parent=of)
    yield "ListAdapters", pb.ListAdaptersRequest(parent=of)
    yield "ListAdapters", pb.ListAdaptersRequest(parent=f"{of}/adapters/cat")
    yield "ImportAdapter", import_into(of)


def test_every_rpc_is_asked_for_what_is_anothers() -> None:
    asked = {rpc for rpc, _ in (*asks_of("other"), *asks_in("other"))}
    assert asked == {method.name for method in SERVICE.methods}


def make_all_of(trainer: Trainer, project: str) -> None:
    """Everything that `asks_of` names."""
    of, dataset = f"projects/{project}", trainer.datasets.create(f"projects/{project}", "cat", "", "").name
    trainer.datasets.add(dataset, [trainer.datasets.keep(dataset, image) for image in bundled(4)])
    trainer.trainings.create(request(parent=of, dataset=str(dataset), adapter_id="a", request_id=TRAINING_REQUEST))
    publish(trainer.store, AdapterVersionName(project, "cat", 1))


def test_what_is_anothers_is_missing_in_the_same_bytes(trainer: Trainer, tmp_path: Path) -> None:
    async def scenario(stub: Any) -> None:
        told = []
        for rpc, message in asks_of("other"):
            # What somebody who may see it is told of a resource that is not there.
            missing = await refused(stub, rpc, message, "boss")
            assert missing[0] == Code.NOT_FOUND
            assert await refused(stub, rpc, message, "trainer") == missing
            told.append(missing)
        # And it makes no difference whether it is.
        make_all_of(trainer, "other")
        before = set(trainer.store.keys(""))
        for (rpc, message), missing in zip(asks_of("other"), told, strict=True):
            assert await refused(stub, rpc, message, "trainer") == missing
        assert set(trainer.store.keys("")) == before
        for rpc, message in asks_of("other"):
            if rpc.startswith("Get"):
                assert await call(stub, rpc, message, "boss")

    run(scenario, trainer, tmp_path)


def test_nothing_is_made_or_listed_in_anothers_project(trainer: Trainer, tmp_path: Path) -> None:
    async def scenario(stub: Any) -> None:
        for project in ("other", "empty"):
            if project == "other":
                make_all_of(trainer, project)
            before = set(trainer.store.keys(""))
            for rpc, message in asks_in(project):
                code, text, _ = await refused(stub, rpc, message, "trainer")
                assert code == Code.NOT_FOUND
                assert str(text).endswith(" does not exist")
            assert set(trainer.store.keys("")) == before
        for rpc, message in asks_in("other"):
            # Of an import only the header comes, so it fails by its file.
            if rpc != "ImportAdapter":
                assert await call(stub, rpc, message, "boss")
        assert "projects/other/datasets/x/dataset.json" in set(trainer.store.keys(""))

    run(scenario, trainer, tmp_path)


def test_roles_decide_and_an_upload_without_an_identity_leaves_nothing(trainer: Trainer, tmp_path: Path) -> None:
    trainer.dataset()
    name = "projects/default/datasets/cat"
    creation = pb.CreateDatasetRequest(dataset_id="new")

    async def scenario(stub: Any) -> None:
        before = set(trainer.store.keys(""))
        for caller, code in (
            ("", Code.UNAUTHENTICATED),
            ("unknown", Code.UNAUTHENTICATED),
            ("looker", Code.PERMISSION_DENIED),
            ("drawer", Code.PERMISSION_DENIED),
        ):
            assert (await refused(stub, "CreateDataset", creation, caller))[0] == code
            assert (await refused(stub, "UploadImages", upload_to(name), caller))[0] == code
        assert set(trainer.store.keys("")) == before
        assert await call(stub, "GetDataset", pb.GetDatasetRequest(name=name), "looker")
        assert (await refused(stub, "GetDataset", pb.GetDatasetRequest(name=name), "drawer"))[0] == (
            Code.PERMISSION_DENIED
        )
        assert await call(stub, "CreateDataset", creation, "trainer")

    run(scenario, trainer, tmp_path)


@pytest.mark.parametrize(
    ("rpc", "message"),
    [
        ("GetDataset", pb.GetDatasetRequest(name="projects/../datasets/x")),
        ("GetTraining", pb.GetTrainingRequest(name="/projects/other/trainings/x")),
        ("ListAdapters", pb.ListAdaptersRequest(parent="projects/other%2fadapters")),
        ("CreateDataset", pb.CreateDatasetRequest(parent="projects/OTHER")),
        ("UploadImages", pb.UploadImagesRequest(chunk=b"x")),
        ("UploadImages", upload_to("projects/a//datasets/x")),
        ("CreateTraining", pb.CreateTrainingRequest()),
        ("ReadArtifact", pb.ReadArtifactRequest(adapter="projects/default/adapters/x/versions/0")),
    ],
)
def test_a_name_that_is_none_is_left_to_the_handlers_words(
    trainer: Trainer, tmp_path: Path, rpc: str, message: Message
) -> None:
    async def scenario(stub: Any) -> None:
        told = await refused(stub, rpc, message, "trainer")
        assert told[0] == Code.INVALID_ARGUMENT
        assert told == await refused(stub, rpc, message, "boss")

    run(scenario, trainer, tmp_path)


def test_a_project_at_its_quota_is_told_which_and_when_to_come_back(trainer: Trainer, tmp_path: Path) -> None:
    trainer.dataset()
    trainer.trainings.create(request(adapter_id="first"))
    wanted = training_pb2.Training(dataset="projects/default/datasets/cat", adapter_id="second")

    async def scenario(stub: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(stub, "CreateTraining", pb.CreateTrainingRequest(training=wanted), "trainer")
        status = rpc_status.from_call(caught.value)
        assert status is not None
        info, retry, quota = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.RetryInfo(),
            error_details_pb2.QuotaFailure(),
        )
        assert [detail.Unpack(kind) for detail, kind in zip(status.details, (info, retry, quota), strict=True)]
        assert (caught.value.code(), info.reason) == (Code.RESOURCE_EXHAUSTED, "PROJECT_TRAININGS")
        assert (retry.retry_delay.seconds, quota.violations[0].subject) == (30, "projects/default")

    run(scenario, trainer, tmp_path, most=1)
