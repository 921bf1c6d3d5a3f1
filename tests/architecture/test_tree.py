"""Rules about the tree itself: how long files are, how they open, what they may be called, what the contract admits."""

import ast
import re
from pathlib import Path

import pytest

from inference_service.servicer import InferenceServicer
from personae.v1 import inference_pb2, inference_pb2_grpc, trainer_pb2, trainer_pb2_grpc
from tests.tracked_files import tracked
from trainer_service.servicer import TrainerServicer

ROOT = Path(__file__).parents[2]
PROTOS = ROOT / "protos" / "personae" / "v1"
MAX_LINES = 300
VAGUE = {"util", "utils", "helper", "helpers", "common", "misc", "manager"}
SERVICES = [
    (trainer_pb2, "TrainerService", TrainerServicer, trainer_pb2_grpc.TrainerServiceServicer),
    (inference_pb2, "InferenceService", InferenceServicer, inference_pb2_grpc.InferenceServiceServicer),
]


SOURCES = [ROOT / path for path in tracked(ROOT, "*.py") if path.parent.name != "v1"]


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in long.items() if lines > MAX_LINES} == {}


def test_every_module_says_what_it_owns() -> None:
    silent = [str(path.relative_to(ROOT)) for path in SOURCES if ast.get_docstring(ast.parse(path.read_text())) is None]
    assert silent == []


def test_no_name_promises_nothing() -> None:
    assert [path for path in tracked(ROOT) if VAGUE & {path.stem, *path.parts}] == []


@pytest.mark.parametrize(("module", "service", "ours", "generated"), SERVICES)
def test_an_rpc_answers_unimplemented_exactly_when_its_comment_says_so(
    module: object, service: str, ours: type, generated: type
) -> None:
    text = (PROTOS / f"{module.__name__.rpartition('.')[2].removesuffix('_pb2')}.proto").read_text()  # type: ignore[attr-defined]
    comments = {rpc: comment for comment, rpc in re.findall(r"((?:  //[^\n]*\n)+)  rpc (\w+)", text)}
    # A comment may break its line anywhere.
    words = {rpc: " ".join(comment.replace("//", " ").split()) for rpc, comment in comments.items()}
    not_built = {rpc for rpc, comment in words.items() if "Not built yet: answers UNIMPLEMENTED" in comment}
    rpcs = {method.name for method in module.DESCRIPTOR.services_by_name[service].methods}  # type: ignore[attr-defined]
    assert len(comments) == len(rpcs)
    assert not_built == {rpc for rpc in rpcs if getattr(ours, rpc) is getattr(generated, rpc)}


def test_proto_types_stay_at_the_edge_of_the_services() -> None:
    edge = {"servicer.py", "wire.py", "asked.py", "enum_words.py", "__main__.py"}
    services = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in ("trainer_service", "inference_service")]
    inside = [path.name for path in services if path.name not in edge and "personae.v1" in path.read_text()]
    assert inside == []


def test_the_readme_names_every_package() -> None:
    readme = (ROOT / "README.md").read_text()
    packages = {path.parent.name for path in SOURCES if path.name == "__init__.py" and path.parent.parent == ROOT}
    assert {package for package in packages if f"`{package}/`" not in readme} == set()
