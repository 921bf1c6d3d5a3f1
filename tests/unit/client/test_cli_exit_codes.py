"""The exit codes that `personae --help` names: each is left by what it says, and by nothing else."""

import re

import grpc
import pytest
from client_fakes import ended, fail, retry_info
from google.rpc import error_details_pb2

import personae
from personae.cli.outcomes import EXIT_CODES, Interrupted, exit_code
from personae.patience import Outage


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "", 2),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "", 2),
        (grpc.StatusCode.NOT_FOUND, "", 3),
        (grpc.StatusCode.ALREADY_EXISTS, "", 4),
        (grpc.StatusCode.FAILED_PRECONDITION, "DATASET_NOT_READY", 4),
        (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING", 5),
        (grpc.StatusCode.PERMISSION_DENIED, "", 5),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", 6),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", 6),
        (grpc.StatusCode.INTERNAL, "", 1),
        (grpc.StatusCode.DATA_LOSS, "", 1),
    ],
)
def test_a_refusal_leaves_its_code_and_says_why(personae_command, trainer, status, reason, code):
    details = [error_details_pb2.ErrorInfo(reason=reason), retry_info(0)] if reason else []
    trainer.instead["GetDataset"] = [lambda context: fail(context, status, "in plain words", *details)]
    left, out, err = personae_command("datasets", "d1")
    assert (left, out, err) == (code, "", "Error: in plain words\n")


def test_nobody_there_is_6_and_says_what_to_do(personae_command, monkeypatch):
    monkeypatch.setattr(Outage, "pause_s", _at_once)
    code, out, err = personae_command("datasets", "--trainer", "127.0.0.1:1")
    assert (code, out) == (6, "")
    assert "personae up" in err
    assert "personae doctor" in err


def _at_once(outage, error, now_s):
    raise error


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
def test_a_training_without_an_adapter_is_1(personae_command, trainer, state):
    trainer.events = [ended(1, state)]
    assert personae_command("watch", "t1")[0] == 1


def test_every_error_of_the_family_has_one_of_the_codes_that_help_names(personae_command):
    code, out, _ = personae_command("--help")
    assert code == 0
    named = {int(number): meaning for number, meaning in re.findall(r"^ +(\d+)  (\S.*?) *$", out, re.MULTILINE)}
    assert named == EXIT_CODES
    family = [found for found in vars(personae.errors).values() if isinstance(found, type)]
    errors = {found for found in family if issubclass(found, personae.PersonaeError)}
    of_several = (personae.InvalidRequest, personae.Incomplete)
    codes = {exit_code(found([]) if found in of_several else found("x")) for found in errors}
    assert codes | {0, exit_code(Interrupted()), exit_code(OSError())} == named.keys()
