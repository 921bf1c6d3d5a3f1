"""A row of the table of bad inputs: what is sent, and exactly what must come back."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.bad_inputs.world import World

_KINDS = {
    kind.DESCRIPTOR.name: kind
    for kind in (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.ResourceInfo,
        error_details_pb2.PreconditionFailure,
        error_details_pb2.QuotaFailure,
        error_details_pb2.RetryInfo,
    )
}


@dataclass(frozen=True)
class Case:
    """One bad input. `send` makes the call, which must be refused."""

    row: int
    what: str
    send: Callable[[World], object]
    code: grpc.StatusCode
    reason: str
    """Of ErrorInfo; empty where gRPC itself answers, which sends no details."""
    fields: frozenset[str] = frozenset()
    """Every field that BadRequest must name, and no other."""
    details: tuple[str, ...] = ()
    """What must come along besides ErrorInfo and BadRequest."""
    says: tuple[str, ...] = ()
    """Words of the text."""
    repeats: int = 200
    """How often it is sent when what it leaves behind is measured."""

    def __str__(self) -> str:
        return f"{self.row}: {self.what}"


@dataclass(frozen=True)
class Refusal:
    """What came back."""

    code: grpc.StatusCode
    text: str
    details: dict[str, Any] = field(default_factory=dict)
    pushback: str | None = None

    @property
    def reason(self) -> str:
        """The stable one."""
        info = self.details.get("ErrorInfo")
        return str(info.reason) if info else ""

    @property
    def fields(self) -> frozenset[str]:
        """Those that BadRequest names."""
        bad_request = self.details.get("BadRequest")
        return frozenset(found.field for found in bad_request.field_violations) if bad_request else frozenset()


def refusal(send: Callable[[], object]) -> Refusal:
    """How a call is refused; one that is not fails the test."""
    try:
        answer = send()
        if isinstance(answer, Iterable):
            list(answer)
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        found = {}
        for packed in status.details if status else ():
            name = packed.type_url.rpartition(".")[2]
            found[name] = _KINDS[name]()
            packed.Unpack(found[name])
        trailing = dict(error.trailing_metadata() or ())
        return Refusal(error.code(), error.details(), found, trailing.get("grpc-retry-pushback-ms"))
    raise AssertionError("it was not refused")


def check(case: Case, world: World) -> None:
    """Send it, and hold what comes back against the table."""
    found = refusal(lambda: case.send(world))
    assert (found.code, found.reason) == (case.code, case.reason), found
    assert found.fields == case.fields
    assert set(found.details) == set(case.details) | ({"ErrorInfo"} if case.reason else set()) | (
        {"BadRequest"} if case.fields else set()
    )
    assert all(word in found.text for word in case.says), found.text
    assert "Traceback" not in found.text
    if case.reason:
        assert found.details["ErrorInfo"].domain == "personae"
    if "RetryInfo" in case.details:
        assert found.pushback == str(found.details["RetryInfo"].retry_delay.ToMilliseconds())
