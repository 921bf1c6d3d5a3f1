"""`--json`: every command writes one documented shape to stdout and nothing else, and its error as one to stderr."""

import json

import grpc
import pytest
from client_fakes import ADAPTER, TRAINING, ended, evaluated, fail, png, progress, sample_ready, validated
from google.rpc import error_details_pb2

import personae
from personae.cli.app import app
from personae.cli.json_output import plain
from personae.v1 import adapter_pb2

DATASET = "projects/default/datasets/d1"
ERROR = {"type", "message", "reason", "violations", "retry_after_s", "exit_code"}


@pytest.fixture
def told(personae_command):
    """Runs a command with --json that shall succeed; the objects it wrote."""

    def run(*arguments):
        code, out, err = personae_command(*arguments, "--json")
        assert (code, err) == (0, "")
        return [json.loads(line) for line in out.splitlines()]

    return run


def test_adapters_are_one_object_with_the_fields_of_the_class(told, trainer):
    trainer.adapter.MergeFrom(adapter_pb2.Adapter(base_model="toon-64", validation_loss=float("nan")))
    ((listed,),) = [answer["adapters"] for answer in told("adapters")]
    assert listed.keys() == personae.Adapter.__dataclass_fields__.keys()
    assert (listed["name"], listed["base_model"], listed["evaluation"]) == (ADAPTER, "toon-64", None)
    # JSON knows no such number.
    assert listed["validation_loss"] is None
    assert listed["create_time"] == "1970-01-01T00:00:00+00:00"


def test_base_models_are_one_object_with_the_fields_of_the_class(told, personae_command):
    ((listed,),) = [answer["base_models"] for answer in told("models")]
    assert listed.keys() == personae.ServedBaseModel.__dataclass_fields__.keys()
    assert (listed["base_model"], listed["schedulers"]) == ("flux", ["euler"])
    _, shown, _ = personae_command("models")
    assert shown.splitlines()[1].split()[0] == "flux"
    assert "none" in shown


def test_files_are_told_by_their_paths(told, trainer, tmp_path):
    trainer.files |= {"exports/adapter": b"weights", "exports/card": b"# Micah"}
    assert told("adapters", "micah", "--download", tmp_path) == [{"path": str(tmp_path / "adapter.safetensors")}]
    card = str(tmp_path / "micah-1.md")
    exported = {"path": str(tmp_path / "micah-1.safetensors"), "model_card": card}
    assert told("export", "micah", "--output", tmp_path) == [exported]


def test_an_import_is_the_adapter_that_was_made(told, tmp_path):
    (tmp_path / "lora.safetensors").write_bytes(b"x")
    (made,) = told("import", tmp_path / "lora.safetensors", "--name=m", "--base-model=toon-64")
    assert made["adapter"]["name"] == ADAPTER


def test_datasets_are_a_list_or_one(told, trainer):
    trainer.pages = [["projects/default/datasets/d1"], ["projects/default/datasets/d2"]]
    (listed,) = told("datasets")
    assert [found["name"] for found in listed["datasets"]] == [DATASET, "projects/default/datasets/d2"]
    (one,) = told("datasets", "d1")
    assert one["dataset"].keys() == personae.Dataset.__dataclass_fields__.keys()
    assert one["dataset"]["images"][0]["warnings"] == ["blurred", "small"]


def test_a_deletion_names_what_is_gone_and_does_not_ask(told, personae_command, trainer):
    assert told("delete", "datasets/d1", "--yes") == [{"deleted": DATASET}]
    code, out, err = personae_command("delete", "datasets/d1", "--json")
    assert (code, out, json.loads(err)["error"]["violations"][0]["field"]) == (2, "", "--yes")
    assert len(trainer.requests["DeleteDataset"]) == 1


def test_train_tells_the_dataset_the_training_each_event_and_the_adapter(told, trainer, folder, tmp_path):
    trainer.events = [progress(1), validated(2, 10, 0.5, True), sample_ready(3, 10), evaluated(4), ended(5)]
    lines = told("train", folder, "--name=micah", "--samples", tmp_path / "samples")
    names = [line["event"] for line in lines]
    assert names[:-2] == ["dataset", "training", "progress", "validated", "sample_ready", "evaluated", "ended"]
    assert [image["rejection"] for image in lines[0]["dataset"]["images"]] == ["", "truncated"]
    assert (lines[1]["training"]["name"], lines[1]["training"]["state"]) == (TRAINING, "queued")
    assert (lines[2]["sequence"], lines[2]["stage"], lines[2]["loss"]) == (1, "stepping", 0.5)
    saved = tmp_path / "samples" / "000010-0.png"
    assert (lines[4]["path"], saved.read_bytes(), "content" in lines[4]) == (str(saved), png(), False)
    assert (lines[5]["evaluation"]["likeness"], lines[5]["evaluation"]["diversity"]) == (pytest.approx(0.71), None)
    assert lines[7] == {"event": "report", "path": None}
    assert lines[8]["adapter"]["name"] == ADAPTER


def test_a_sample_that_is_not_saved_has_no_path(told, trainer):
    trainer.events = [sample_ready(1, 10), ended(2)]
    assert told("watch", "t1")[0]["path"] is None


def test_train_without_following_ends_with_the_training_or_the_plan(told, trainer):
    assert [line["event"] for line in told("train", DATASET, "--name=n", "--detach")] == ["dataset", "training"]
    trainer.plan.estimate.peak_memory_bytes = 7
    lines = told("train", DATASET, "--name=n", "--dry-run")
    assert [line["event"] for line in lines] == ["dataset", "plan"]
    assert lines[1]["plan"]["peak_memory_bytes"] == 7


def test_generate_tells_each_image_and_how_many_there_were(told, tmp_path):
    lines = told("generate", "a", "--seed=3", "--seed=4", "--output", tmp_path)
    images = [line for line in lines if line["event"] == "image"]
    assert [(image["seed"], image["path"]) for image in images] == [
        (4, str(tmp_path / "001-4.png")),
        (3, str(tmp_path / "000-3.png")),
    ]
    assert images[0].keys() == {"event", "path", *personae.Image.__dataclass_fields__} - {"content"}
    assert {line["total"] for line in lines if line["event"] == "progress"} == {2}
    assert lines[-1] == {"event": "done", "saved": 2, "filtered": 0}


def test_the_shape_of_every_command_is_in_its_help(personae_command):
    commands = [command.name or command.callback.__name__ for command in app.registered_commands]
    for command in commands:
        code, out, _ = personae_command(command.replace("_", "-"), "--help")
        said = " ".join(word for line in out.splitlines() for word in line.strip("│ ").split())
        assert code == 0
        assert "Usage: personae" in said
        assert "--json" in said, command
        assert "Print JSON alone" in " ".join(said.split()), command


@pytest.mark.parametrize(
    ("arguments", "rpc"),
    [
        (["train", DATASET, "--name=n"], "CreateTraining"),
        (["train", DATASET, "--name=n", "--dry-run"], "CreateTraining"),
        (["watch", "t1"], "GetTraining"),
        (["adapters"], "ListAdapters"),
        (["adapters", "m", "--download=."], "ReadArtifact"),
        (["export", "m"], "ExportAdapter"),
        (["datasets"], "ListDatasets"),
        (["datasets", "d1"], "GetDataset"),
        (["delete", "adapters/m", "--yes"], "DeleteAdapter"),
        (["compare", "a", "--adapter=m"], "GetAdapter"),
        (["import", "lora.safetensors", "--name=n", "--base-model=b"], "ImportAdapter"),
        (["generate", "a"], "Generate"),
    ],
)
def test_a_refusal_is_one_object_on_stderr(personae_command, trainer, inference, arguments, rpc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lora.safetensors").write_bytes(b"x")
    bad = error_details_pb2.BadRequest.FieldViolation(field="f", description="bad")
    details = [error_details_pb2.BadRequest(field_violations=[bad]), error_details_pb2.ErrorInfo(reason="R")]
    for service in (trainer, inference):
        service.instead[rpc] = [lambda context: fail(context, grpc.StatusCode.INVALID_ARGUMENT, "no", *details)]
    code, out, err = personae_command(*arguments, "--json")
    (error,) = [json.loads(line)["error"] for line in err.splitlines()]
    assert error == {
        "type": "InvalidRequest",
        "message": "f: bad",
        "reason": "R",
        "violations": [{"field": "f", "description": "bad"}],
        "retry_after_s": None,
        "exit_code": 2,
    }
    assert code == 2
    # What came before the refusal is whole lines of JSON.
    assert all(json.loads(line)["event"] == "dataset" for line in out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train"], "Missing argument"),
        (["nonsense"], "nonsense"),
        (["watch", "t1", "--on-interrupt=x"], "--on-interrupt"),
        (["verify-store", "--rounds=0"], "--rounds"),
        (["doctor", "--store-port=x"], "--store-port"),
        (["up", "--nonsense"], "--nonsense"),
        (["demo", "x"], "x"),
    ],
)
def test_wrong_words_are_an_object_too(personae_command, arguments, said):
    code, out, err = personae_command(*arguments, "--json")
    error = json.loads(err)["error"]
    assert (code, out, error["type"], error["exit_code"], error.keys()) == (2, "", "UsageError", 2, ERROR)
    assert said in error["message"]


def test_a_failed_training_is_an_event_and_an_error(personae_command, trainer):
    trainer.events = [ended(1, "FAILED", reason="NON_FINITE_LOSS", message="the loss became infinite")]
    code, out, err = personae_command("watch", "t1", "--json")
    assert (json.loads(out)["event"], json.loads(out)["failure_reason"]) == ("ended", "NON_FINITE_LOSS")
    error = json.loads(err)["error"]
    assert (code, error["type"], error["reason"]) == (1, "TrainingFailed", "NON_FINITE_LOSS")


def test_a_prompt_that_is_called_so_does_not_ask_for_json(personae_command, inference, tmp_path):
    code, out, _ = personae_command("generate", "--seed=1", "--output", tmp_path, "--", "--json")
    assert (code, out) == (0, f"{tmp_path / '000-1.png'}\n")
    assert inference.requests["Generate"][0].prompts[0].text == "--json"


def test_numbers_that_json_does_not_know_become_null():
    assert plain({"a": [float("inf"), float("nan"), 1.5]}) == {"a": [None, None, 1.5]}
