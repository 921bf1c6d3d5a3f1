"""The table of access: it has every rpc of the contract, holds every name in a request, and is what the page shows."""

import re
from pathlib import Path

import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from personae.v1 import inference_pb2, trainer_pb2
from service_kit.access_interceptor import check_projects
from service_kit.access_table import OPEN, RULES
from service_kit.errors import ResourceMissing
from service_kit.identity import Identity, Role

DOCS = Path(__file__).parents[3] / "docs" / "security.md"
SERVICES = [
    (trainer_pb2, "TrainerService"),
    (inference_pb2, "InferenceService"),
    (health_pb2, "Health"),
    (reflection_pb2, "ServerReflection"),
]
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for module, name in SERVICES
    for service in [module.DESCRIPTOR.services_by_name[name]]
    for method in service.methods
}
NOBODYS = Identity("nobody", frozenset(Role), frozenset())
DIGEST = "0" * 64
# Fields that hold the name of a resource, or a project's id, and something that such a field may hold.
NAMES = {
    "parent": ["projects/p", "projects/p/adapters/a", "projects/p/adapters/a/versions/1", "projects/p/datasets/d"],
    "name": [
        "projects/p/datasets/d",
        "projects/p/trainings/t",
        "projects/p/adapters/a",
        "projects/p/adapters/a/versions/1",
    ],
    "dataset": ["projects/p/datasets/d"],
    "adapter": ["projects/p/adapters/a", "projects/p/adapters/a/versions/1"],
    "image": [f"projects/p/datasets/d/images/{DIGEST}"],
    "project": ["p"],
}
# Filled by the server, and passed over in a request.
NOT_READ = {"personae.v1.Training.name", "personae.v1.Training.adapter"}


def test_every_rpc_is_in_the_table_and_nothing_else() -> None:
    assert RULES.keys() | OPEN == METHODS.keys()
    assert not RULES.keys() & OPEN
    assert {method for method in OPEN if not method.startswith("/grpc.health.v1.Health/")} == set()


def test_an_operator_may_call_everything_and_every_role_something() -> None:
    assert all(Role.OPERATOR in rule.roles for rule in RULES.values())
    assert all(any(role in rule.roles for rule in RULES.values()) for role in Role)


def new_request(method: str) -> Message:
    """An empty request of a method."""
    return GetMessageClass(METHODS[method].input_type)()


def named_requests(message: Message, path: str = "") -> list[tuple[str, str]]:
    """Paths of the fields that hold a name below a message, with texts that they may hold."""
    found = []
    for field in message.DESCRIPTOR.fields:
        here = f"{path}{field.name}"
        if field.full_name in NOT_READ:
            continue
        if field.type == field.TYPE_STRING and field.name in NAMES:
            found += [(here, text) for text in NAMES[field.name]]
        elif field.message_type is not None and field.message_type.file.package == "personae.v1":
            # From a fresh message, so that a message within itself ends; none of the contract is.
            inner = getattr(message, field.name)
            inner = inner.add() if field.is_repeated else inner
            found += named_requests(inner, f"{here}.")
    return found


def with_name(request: Message, path: str, text: str) -> Message:
    """The request with a name at a path; what else must be there to be looked at is of the default project."""
    target = request
    *outer, last = path.split(".")
    for step in outer:
        field = target.DESCRIPTOR.fields_by_name[step]
        target = getattr(target, step).add() if field.is_repeated else getattr(target, step)
        target.SetInParent()
    setattr(target, last, text)
    return request


CASES = [
    (method, path, text)
    for method in METHODS
    if method in RULES and method.startswith("/personae")
    for path, text in named_requests(new_request(method))
]


def test_there_are_names_in_almost_every_request() -> None:
    without = {"ListServedAdapters", "GetServingInfo"}
    assert {method for method, _, _ in CASES} == {
        method for method in RULES if method.startswith("/personae") and method.rpartition("/")[2] not in without
    }


@pytest.mark.parametrize(("method", "path"), sorted({(method, path) for method, path, _ in CASES}))
def test_a_name_in_any_field_of_any_request_is_held_against_the_projects(method: str, path: str) -> None:
    """Found from the descriptors, so that a field that is added and forgotten in the table fails here."""
    default_only = Identity("default", frozenset(Role), frozenset({"default"}))
    refused = []
    for _, _, text in [case for case in CASES if case[:2] == (method, path)]:
        request = with_name(new_request(method), path, text)
        try:
            check_projects(request, RULES[method], default_only)
        except ResourceMissing as error:
            refused.append(error.name)
    assert refused
    assert all(name.startswith("projects/p") for name in refused)


@pytest.mark.parametrize("method", sorted({method for method, _, _ in CASES}))
def test_what_an_empty_request_means_is_held_against_them_too(method: str) -> None:
    """An empty parent or project is the default one; where a name must be there, its handler refuses the request."""
    request = new_request(method)
    means_default = {"parent", "project"} & {field.name for field in request.DESCRIPTOR.fields}
    if method.endswith("ListImages"):
        means_default = set()
    if means_default:
        with pytest.raises(ResourceMissing, match="projects/default"):
            check_projects(request, RULES[method], NOBODYS)
    else:
        check_projects(request, RULES[method], NOBODYS)


def test_the_page_shows_the_table() -> None:
    shown = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", DOCS.read_text(), re.MULTILINE)
    roles = [Role.VIEWER, Role.TRAINER, Role.GENERATOR, Role.OPERATOR]
    marks = {True: "yes", False: ""}
    wanted = {}
    for method, rule in RULES.items():
        cells = [marks[role in rule.roles] for role in roles]
        if rule.needs_all_projects:
            cells = ["of all projects" if cell else "" for cell in cells]
        wanted[method.rpartition("/")[2]] = cells
    assert {name: [cell.strip() for cell in cells] for name, *cells in shown} == wanted
