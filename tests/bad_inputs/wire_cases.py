"""What is refused before a handler sees it: who may not call, and bytes that are no message of ours."""

from typing import Any

import grpc

from personae.v1 import trainer_pb2 as pb
from tests.bad_inputs.case import Case
from tests.bad_inputs.world import CALL_S, OURS, THEIRS, VIEWER, World, good_generation

Code = grpc.StatusCode
_SERVICES = {"trainer": "personae.v1.TrainerService", "inference": "personae.v1.InferenceService"}
_INVALID_UTF8 = b"\x0a\x02\xff\xfe"
_GARBAGE = b"\xff" * 32


def _raw(
    world: World, service: str, rpc: str, body: bytes, metadata: Any = (("authorization", f"Bearer {OURS}"),)
) -> Any:
    """Bytes to a method, whether it exists or not."""
    call = world.channels[service].unary_unary(
        f"/{_SERVICES[service]}/{rpc}", request_serializer=None, response_deserializer=None
    )
    return call(body, timeout=CALL_S, metadata=metadata)


def _raw_stream(world: World, service: str, rpc: str, body: bytes) -> Any:
    call = world.channels[service].unary_stream(
        f"/{_SERVICES[service]}/{rpc}", request_serializer=None, response_deserializer=None
    )
    return call(body, timeout=CALL_S, metadata=[("authorization", f"Bearer {OURS}")])


def _raw_upload(world: World, body: bytes) -> Any:
    call = world.channels["trainer"].stream_unary(
        f"/{_SERVICES['trainer']}/UploadImages", request_serializer=None, response_deserializer=None
    )
    return call(iter([body]), timeout=CALL_S, metadata=[("authorization", f"Bearer {OURS}")])


def _unknown_caller(what: str, token: str, reason: str) -> list[Case]:
    return [
        Case(
            37,
            f"{what} to the trainer",
            lambda world: world.trainer("ListDatasets", pb.ListDatasetsRequest(), token),
            Code.UNAUTHENTICATED,
            reason,
        ),
        Case(
            37,
            f"{what} to inference",
            lambda world: world.inference("Generate", good_generation(), token),
            Code.UNAUTHENTICATED,
            reason,
        ),
    ]


CASES = [
    *_unknown_caller("no token", "", "TOKEN_MISSING"),
    *_unknown_caller("a token that nobody was given", "token-of-nobody", "TOKEN_INVALID"),
    *_unknown_caller(
        "a token that is a JWT without a signature", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtZSJ9.", "TOKEN_INVALID"
    ),
    Case(
        37,
        "the wrong role for the trainer",
        lambda world: world.trainer("CreateDataset", pb.CreateDatasetRequest(), VIEWER),
        Code.PERMISSION_DENIED,
        "NOT_PERMITTED",
    ),
    Case(
        37,
        "the wrong role for inference",
        lambda world: world.inference("Generate", good_generation(), VIEWER),
        Code.PERMISSION_DENIED,
        "NOT_PERMITTED",
    ),
    Case(
        4,
        "our dataset to another project",
        lambda world: world.trainer("GetDataset", pb.GetDatasetRequest(name=world.dataset), THEIRS),
        Code.NOT_FOUND,
        "NOT_FOUND",
        details=("ResourceInfo",),
        says=("does not exist",),
    ),
    *(
        Case(
            38,
            f"a method that {service} has not",
            lambda world, service=service: _raw(world, service, "Steal", b""),
            Code.UNIMPLEMENTED,
            "",
        )
        for service in _SERVICES
    ),
    *(
        Case(
            38,
            f"{what} to {rpc}",
            lambda world, send=send, body=body: send(world, body),
            Code.INVALID_ARGUMENT,
            "INVALID_REQUEST",
            frozenset({""}),
        )
        for what, body in (("garbage", _GARBAGE), ("invalid UTF-8", _INVALID_UTF8))
        for rpc, send in {
            "GetDataset": lambda world, body: _raw(world, "trainer", "GetDataset", body),
            "WatchTraining": lambda world, body: _raw_stream(world, "trainer", "WatchTraining", body),
            "UploadImages": _raw_upload,
            "Generate": lambda world, body: _raw_stream(world, "inference", "Generate", body),
        }.items()
    ),
    *(
        Case(
            36,
            f"metadata of 20 KB to {service}",
            lambda world, service=service, rpc=rpc: _raw(
                world, service, rpc, b"", [("authorization", f"Bearer {OURS}"), ("x", "y" * 20_000)]
            ),
            Code.RESOURCE_EXHAUSTED,
            "",
        )
        for service, rpc in (("trainer", "ListDatasets"), ("inference", "GetServingInfo"))
    ),
    Case(
        36,
        "a message of 5 MiB to the trainer",
        lambda world: world.trainer("GetDataset", pb.GetDatasetRequest(name="x" * 5 * 2**20)),
        Code.RESOURCE_EXHAUSTED,
        "",
    ),
]
