"""The command: exit codes, and what goes to stdout and to stderr."""

import grpc
import pytest
from client_fakes import ADAPTER, ended, evaluated, evaluation, fail, progress
from google.rpc import error_details_pb2


def test_train_names_refused_pictures_and_prints_the_adapter(personae_command, trainer, folder):
    trainer.events = [progress(1), progress(2), ended(3)]
    code, out, err = personae_command("train", folder, "--name", "micah")
    assert (code, out) == (0, f"{ADAPTER}\n")
    assert "1 of 2 pictures accepted" in err
    assert "broken.png: truncated: the file ends early" in err


def test_what_was_measured_is_one_line_after_a_training_and_in_the_list(personae_command, trainer):
    trainer.events = [evaluated(1), ended(2)]
    trainer.adapter.evaluation.CopyFrom(evaluation())
    code, out, err = personae_command("watch", "t1")
    assert (code, out) == (0, f"{ADAPTER}\n")
    assert err.count("likeness 0.71, obedience 0 %, memorisation 0.8") == 1
    code, out, _ = personae_command("adapters")
    assert code == 0
    assert out.splitlines()[1].rstrip().endswith("likeness 0.71, obedience 0 %, memorisation 0.8")


def test_a_failed_training_is_exit_code_1_and_one_sentence(personae_command, trainer):
    trainer.events = [ended(1, "FAILED", reason="NON_FINITE_LOSS", message="the loss became infinite")]
    code, out, err = personae_command("watch", "t1")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "Error: the loss became infinite"


def test_an_invalid_request_is_exit_code_2_with_every_violation(personae_command, trainer, folder):
    violations = [error_details_pb2.BadRequest.FieldViolation(field=name, description="bad") for name in ("a", "b")]
    trainer.instead["CreateTraining"] = [
        lambda context: fail(
            context, grpc.StatusCode.INVALID_ARGUMENT, "", error_details_pb2.BadRequest(field_violations=violations)
        )
    ]
    code, _, err = personae_command("train", folder, "--name", "micah", "--rank", "0")
    assert code == 2
    assert err.splitlines()[-1] == "Error: a: bad; b: bad"


@pytest.mark.parametrize(
    "arguments", [["train"], ["nonsense"], ["generate", "a", "--scheduler", "heun"], ["generate", "a", "--adapter=x=y"]]
)
def test_wrong_usage_is_exit_code_2(personae_command, arguments):
    code, out, err = personae_command(*arguments)
    assert (code, out) == (2, "")
    assert err
    assert "Traceback" not in err


def test_generate_saves_each_image_and_prints_its_path(personae_command, inference, tmp_path):
    code, out, _ = personae_command("generate", "a", "--seed=3", "--seed=4", "--adapter=m=0.5", "--output", tmp_path)
    assert code == 0
    assert out.splitlines() == [str(tmp_path / "001-4.png"), str(tmp_path / "000-3.png")]
    assert (tmp_path / "001-4.png").read_bytes() == b"a/4"
    assert inference.requests["Generate"][0].adapters[0].weight == 0.5


def test_generate_starts_from_a_file(personae_command, inference, tmp_path):
    (tmp_path / "a.png").write_bytes(b"picture")
    (tmp_path / "m.png").write_bytes(b"mask")
    options = ["--start", tmp_path / "a.png", "--mask", tmp_path / "m.png", "--strength=0.4"]
    code, _, _ = personae_command("generate", "a", *options, "--output", tmp_path)
    assert code == 0
    start = inference.requests["Generate"][0].start
    assert (start.content, start.mask, start.strength) == (b"picture", b"mask", 0.4)


def test_adapters_downloads_the_one_that_is_named(personae_command, tmp_path):
    code, out, _ = personae_command("adapters", "micah", "--download", tmp_path)
    assert (code, out) == (0, f"{tmp_path / 'adapter.safetensors'}\n")


def test_a_folder_that_cannot_be_written_is_one_sentence(personae_command, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = personae_command("generate", "a", "--output", tmp_path / "file" / "below")
    assert code == 1
    assert err.startswith("Error: ")


def test_datasets_lists_every_page_by_id(personae_command, trainer):
    trainer.pages = [["projects/default/datasets/d1"], ["projects/default/datasets/d2"]]
    code, out, _ = personae_command("datasets")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["d1", "d2"]


def test_datasets_shows_what_was_found_in_one(personae_command):
    code, out, err = personae_command("datasets", "d1")
    assert code == 0
    assert out.splitlines()[1].rstrip().endswith("blurred, small, mask")
    assert "a.png: blurred, small" in err
