"""The example that calls through reflection: no stub, no proto, against real services; and where reflection is off."""

import ast
import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

import personae
from personae.cli import local_stack
from personae.v1 import inference_pb2, trainer_pb2
from tests.real_store import RealStore
from tests.service_process import running_service, service_environment

EXAMPLE = Path(__file__).parents[2] / "examples" / "reflection" / "call.py"
PICTURES = Path(__file__).parents[2] / "base_models" / "toon_64" / "sets" / "toon-a" / "train"
RUN_S = 120.0


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)


def test_it_knows_nothing_of_personae() -> None:
    tree = ast.parse(EXAMPLE.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert [name for name in names if name.startswith("personae")] == []


@pytest.mark.parametrize(
    ("service", "module"), [("trainer", trainer_pb2), ("inference", inference_pb2)], ids=["trainer", "inference"]
)
def test_every_method_is_listed(stack: local_stack.Running, service: str, module: object) -> None:
    listed = call(getattr(stack, service))
    assert listed.returncode == 0, listed.stderr
    (described,) = module.DESCRIPTOR.services_by_name.values()  # type: ignore[attr-defined]
    assert listed.stdout.split() == [f"{described.full_name}/{method.name}" for method in described.methods]


def test_a_call_is_made_from_json_alone(stack: local_stack.Running, client: personae.Client) -> None:
    dataset = client.create_dataset("by-reflection", pictures=PICTURES)
    got = call(stack.trainer, "personae.v1.TrainerService/GetDataset", json.dumps({"name": dataset.name}))
    assert got.returncode == 0, got.stderr
    assert json.loads(got.stdout)["dataset"]["report"]["accepted_count"] == 16


def test_a_stream_is_followed_to_its_end(stack: local_stack.Running) -> None:
    request = {"prompts": [{"text": "a picture of a character, happy", "seeds": ["5"]}], "base_model": "toon-64"}
    got = call(stack.inference, "personae.v1.InferenceService/Generate", json.dumps(request))
    assert got.returncode == 0, got.stderr
    decoder, messages, text = json.JSONDecoder(), [], got.stdout.strip()
    while text:
        message, end = decoder.raw_decode(text)
        messages.append(message)
        text = text[end:].lstrip()
    assert "accepted" in messages[0]
    (image,) = [message["image"] for message in messages if "image" in message]
    assert base64.b64decode(image["content"]).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["personae.v1.TrainerService/GetDataset", '{"nam": "x"}'], 'has no field named "nam"'),
        (["personae.v1.TrainerService/GetDatset"], "found no method 'personae.v1.TrainerService/GetDatset'"),
        (["personae.v1.TrainerService/UploadImages"], "takes a stream of requests"),
        (["personae.v1.TrainerService/GetDataset", '{"name": "projects/default/datasets/none"}'], "NOT_FOUND: "),
    ],
)
def test_what_is_wrong_is_said(stack: local_stack.Running, arguments: list[str], said: str) -> None:
    got = call(stack.trainer, *arguments)
    assert got.returncode == 1
    assert said in got.stderr


def test_a_server_with_reflection_off_is_told_apart_from_a_broken_one(real_store: RealStore, tmp_path: Path) -> None:
    settings = {"PERSONAE_TRAINER_REFLECTION": "false", "PERSONAE_TRAINER_WORKERS": "0"}
    with running_service("trainer_service", service_environment(real_store, **settings), tmp_path / "log") as service:
        got = call(service.address)
        assert service.stop() == 0
    assert got.returncode == 1
    assert "reflection switched off (PERSONAE_TRAINER_REFLECTION" in got.stderr
