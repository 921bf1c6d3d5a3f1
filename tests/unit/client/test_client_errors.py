"""Statuses and their google.rpc details become the client's own errors."""

import re
import traceback

import grpc
import pytest
from client_fakes import fail, retry_info
from google.rpc import error_details_pb2

import personae


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.NOT_FOUND, personae.NotFound),
        (grpc.StatusCode.ALREADY_EXISTS, personae.AlreadyExists),
        (grpc.StatusCode.FAILED_PRECONDITION, personae.PreconditionFailed),
        (grpc.StatusCode.UNIMPLEMENTED, personae.NotBuilt),
        (grpc.StatusCode.DATA_LOSS, personae.Corrupted),
        (grpc.StatusCode.DEADLINE_EXCEEDED, personae.DeadlineExceeded),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, personae.Busy),
        (grpc.StatusCode.INVALID_ARGUMENT, personae.InvalidRequest),
        (grpc.StatusCode.OUT_OF_RANGE, personae.InvalidRequest),
        (grpc.StatusCode.INTERNAL, personae.ServerDefect),
        (grpc.StatusCode.UNKNOWN, personae.ServerDefect),
    ],
)
def test_every_status_has_its_error_with_the_reason_and_the_words(client, trainer, code, error):
    info = error_details_pb2.ErrorInfo(reason="SOME_REASON", domain="personae")
    trainer.instead["GetTraining"] = [lambda context: fail(context, code, "in plain words", info)]
    with pytest.raises(error, match="in plain words") as raised:
        client.get_training("t1")
    assert type(raised.value) is error
    assert raised.value.reason == "SOME_REASON"


def test_a_call_that_a_stopping_server_cancels_is_asked_again(client, trainer, inference):
    trainer.instead["GetTraining"] = [lambda context: fail(context, grpc.StatusCode.CANCELLED, "dropped")]
    inference.instead["Generate"] = [lambda context: fail(context, grpc.StatusCode.CANCELLED, "dropped")]
    assert client.get_training("t1").name
    assert len(list(client.generate("a picture"))) == 1


def test_all_violations_arrive_together(client, trainer):
    found = [("training.config.rank", "found 0"), ("training.config.steps", "found -1")]
    violations = [error_details_pb2.BadRequest.FieldViolation(field=name, description=text) for name, text in found]
    bad = error_details_pb2.BadRequest(field_violations=violations)
    trainer.instead["CreateTraining"] = [
        lambda context: fail(context, grpc.StatusCode.INVALID_ARGUMENT, "two fields are wrong", bad)
    ]
    with pytest.raises(personae.InvalidRequest) as raised:
        client.train("projects/default/datasets/d1", name="micah", rank=0, steps=-1)
    assert [(violation.field, violation.description) for violation in raised.value.violations] == found
    assert str(raised.value) == "training.config.rank: found 0; training.config.steps: found -1"


def test_a_full_server_says_how_long_to_wait(client, inference):
    info = error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="personae")
    inference.instead["Generate"] = [
        lambda context: fail(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "full", info, retry_info(0.5))
    ]
    with pytest.raises(personae.Busy) as raised:
        next(client.generate("a picture"))
    assert raised.value.retry_after_s == 0.5


def test_a_deadline_that_is_too_short_now_says_when_it_will_do(client, inference):
    info = error_details_pb2.ErrorInfo(reason="DEADLINE_TOO_SHORT", domain="personae")
    inference.instead["Generate"] = [
        lambda context: fail(context, grpc.StatusCode.DEADLINE_EXCEEDED, "too short", info, retry_info(0.5))
    ]
    with pytest.raises(personae.DeadlineExceeded) as raised:
        next(client.generate("a picture"))
    assert (raised.value.reason, raised.value.retry_after_s) == ("DEADLINE_TOO_SHORT", 0.5)


def test_every_error_says_what_to_do_as_its_table_does():
    table = dict(re.findall(r"── (\w+) +(.+)", personae.errors.__doc__))
    family = [error for error in personae.PersonaeError.__subclasses__() if error.__module__ == "personae.errors"]
    assert table == {error.__name__: error.remedy for error in family}
    shown = "".join(traceback.format_exception(personae.TooLarge("9 MB")))
    assert shown.endswith("TooLarge: 9 MB\nWhat to do: send less at once.\n")


def test_a_refused_message_size_is_no_reason_to_wait(client, trainer):
    trainer.instead["GetTraining"] = [
        lambda context: context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max")
    ]
    with pytest.raises(personae.TooLarge):
        client.get_training("t1")


def test_an_unknown_word_is_refused_with_those_that_are_known(client):
    with pytest.raises(personae.InvalidRequest, match="ddim, euler, dpm-solver-multistep"):
        client.generate("a picture", scheduler="heun")


def test_a_number_that_fits_no_field_is_refused_before_it_is_sent(client):
    with pytest.raises(personae.InvalidRequest, match="range"):
        client.train("projects/default/datasets/d1", name="micah", seed=2**63)
