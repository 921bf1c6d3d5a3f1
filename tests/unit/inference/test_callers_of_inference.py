"""Who may ask the inference service for what, over a real port: roles, projects, and missing and foreign told alike."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from inference_service.ledger import Ledger, Making
from personae.v1 import inference_pb2 as pb
from service_kit import schema
from service_kit.names import AdapterVersionName, DatasetName, ProjectName
from tests.bucket_adapters import publish
from tests.identities import bearer, interceptor, listed
from tests.unit.inference.fake_serving import EPOCH, PATIENCE_S, FakeServing, ask, serve
from tests.unit.inference.picture_bytes import encoded, picture

MINE, THEIRS = AdapterVersionName("mine", "hero", 1), AdapterVersionName("theirs", "hero", 1)
ENTRIES = (
    listed("drawer", ["generator"], ["mine"]),
    listed("looker", ["viewer"], ["mine"]),
    listed("boss", ["operator"], ["*"]),
    listed("manager", ["operator"], ["mine"]),
)
SERVICE = pb.DESCRIPTOR.services_by_name["InferenceService"]
PICTURE = encoded(picture())
DIGEST = hashlib.sha256(PICTURE).hexdigest()
Refusal = tuple[grpc.StatusCode, str | None, object]


def weighted(*names: object) -> list[pb.AdapterWeight]:
    return [pb.AdapterWeight(adapter=str(name)) for name in names]


async def call(serving: FakeServing, rpc: str, request: Message, name: str) -> list[Any]:
    """The answers to a call by an identity."""
    calling = getattr(serving.stub, rpc)(request, timeout=PATIENCE_S, metadata=bearer(name) if name else ())
    return [answer async for answer in calling] if rpc == "Generate" else [await calling]


async def refused(serving: FakeServing, rpc: str, request: Message, name: str) -> Refusal:
    """Everything that the caller sees of a refusal."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(serving, rpc, request, name)
    return caught.value.code(), caught.value.details(), tuple(caught.value.trailing_metadata() or ())


def run(tmp_path: Path, scenario: Callable[[FakeServing], Any]) -> None:
    serve(tmp_path, scenario, access=interceptor(tmp_path / "tokens.json", *ENTRIES))


def test_the_right_caller_gets_its_images_and_nobody_else_any(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(serving.store, MINE)
        wanted = ask(1, adapters=weighted(MINE))
        for name, code in (
            ("", grpc.StatusCode.UNAUTHENTICATED),
            ("unknown", grpc.StatusCode.UNAUTHENTICATED),
            ("looker", grpc.StatusCode.PERMISSION_DENIED),
        ):
            assert (await refused(serving, "Generate", wanted, name))[0] == code
        assert serving.engine.requests == []
        for name in ("drawer", "manager", "boss"):
            assert (await call(serving, "Generate", wanted, name))[-1].HasField("done")

    run(tmp_path, scenario)


# Every rpc that names a resource, with requests for those of a project.
ASKS: list[tuple[str, Callable[[AdapterVersionName], Message]]] = [
    ("Generate", lambda name: ask(1, adapters=weighted(name))),
    ("Generate", lambda name: ask(1, adapters=weighted(name.adapter_name), project="mine")),
    ("Generate", lambda name: ask(1, adapters=weighted(MINE, name))),
    ("Generate", lambda name: ask(1, project="mine", start=pb.StartPicture(image=picture_of(name.project)))),
    ("PreloadAdapter", lambda name: pb.PreloadAdapterRequest(adapter=str(name))),
    ("LookUpImage", lambda name: pb.LookUpImageRequest(project=name.project, digest=DIGEST)),
    ("ListImages", lambda name: pb.ListImagesRequest(parent=str(name))),
    ("ListImages", lambda name: pb.ListImagesRequest(parent=f"projects/{name.project}/datasets/d")),
]
NAME_NOTHING = {"ListServedAdapters", "GetServingInfo"}


def picture_of(project: str) -> str:
    return f"projects/{project}/datasets/d/images/{DIGEST}"


def test_every_rpc_is_asked_for_what_is_anothers_or_names_nothing() -> None:
    assert {rpc for rpc, _ in ASKS} | NAME_NOTHING == {method.name for method in SERVICE.methods}


@pytest.mark.parametrize(("rpc", "request_of"), ASKS)
def test_what_is_anothers_is_missing_in_the_same_bytes(
    tmp_path: Path, rpc: str, request_of: Callable[[AdapterVersionName], Message]
) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(serving.store, MINE)
        missing = await refused(serving, rpc, request_of(THEIRS), "drawer")
        assert missing[0] == grpc.StatusCode.NOT_FOUND
        if rpc == "ListImages":
            # Who may see it is told that there are none; the words are those for what is missing elsewhere.
            assert str(missing[1]).endswith(" does not exist")
        else:
            # What somebody who may see it is told of a resource that is not there.
            assert await refused(serving, rpc, request_of(THEIRS), "boss") == missing
        # And it makes no difference whether it is.
        make_all_of(serving, THEIRS)
        assert await refused(serving, rpc, request_of(THEIRS), "drawer") == missing
        assert serving.engine.requests == []
        assert await call(serving, rpc, request_of(THEIRS), "boss")

    run(tmp_path, scenario)


def make_all_of(serving: FakeServing, name: AdapterVersionName) -> None:
    """Everything that `ASKS` names."""
    publish(serving.store, name)
    dataset = DatasetName(name.project, "d")
    serving.store.put(schema.dataset_image(dataset, DIGEST), PICTURE)
    making = Making(generation="g", adapters=(), base_model="toon-64", base_model_digest="b" * 64)
    Ledger(serving.store, lambda: EPOCH).note(ProjectName(name.project), DIGEST, making)


def test_the_share_of_another_project_is_not_to_be_had(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(serving.store, MINE)
        for request in (
            ask(1),
            ask(1, project="theirs"),
            ask(1, project="theirs", adapters=weighted(MINE)),
        ):
            code, text, _ = await refused(serving, "Generate", request, "drawer")
            assert code == grpc.StatusCode.NOT_FOUND
            assert str(text).startswith("Project projects/")
        assert serving.engine.requests == []

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("rpc", "request_"),
    [
        ("Generate", ask(1, project="../mine")),
        ("Generate", ask(1, adapters=weighted("projects/mine/adapters/../x"))),
        ("Generate", ask(1, project="mine", start=pb.StartPicture(image="/etc/passwd"))),
        ("PreloadAdapter", pb.PreloadAdapterRequest(adapter="projects/mine//adapters/x")),
        ("LookUpImage", pb.LookUpImageRequest(project="mine", digest="0")),
        ("LookUpImage", pb.LookUpImageRequest(project="MINE", digest="0" * 64)),
    ],
)
def test_a_name_that_is_none_is_left_to_the_handlers_words(tmp_path: Path, rpc: str, request_: Message) -> None:
    async def scenario(serving: FakeServing) -> None:
        told = await refused(serving, rpc, request_, "manager")
        assert told[0] == grpc.StatusCode.INVALID_ARGUMENT
        assert told == await refused(serving, rpc, request_, "boss")

    run(tmp_path, scenario)


def test_what_tells_of_all_projects_takes_an_operator_of_all(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        listing = pb.ListServedAdaptersRequest()
        for name in ("drawer", "looker", "manager"):
            code, _, _ = await refused(serving, "ListServedAdapters", listing, name)
            assert code == grpc.StatusCode.PERMISSION_DENIED
        assert await call(serving, "ListServedAdapters", listing, "boss")
        for name in ("drawer", "looker", "manager", "boss"):
            assert await call(serving, "GetServingInfo", pb.GetServingInfoRequest(), name)

    run(tmp_path, scenario)
