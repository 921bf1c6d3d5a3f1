"""Following a training: nothing lost, nothing repeated, whatever the connection does."""

import socket

import pytest
from client_fakes import (
    ADAPTER,
    TRAINING,
    ended,
    evaluated,
    evaluation,
    png,
    progress,
    retry_info,
    sample_ready,
    sequences,
    unavailable,
    validated,
)

import personae


def test_events_end_with_the_ended_event(client, trainer):
    trainer.events = [progress(1), progress(2), ended(3)]
    events = list(client.get_training("t1").events())
    assert sequences(events) == [1, 2, 3]
    assert isinstance(events[0], personae.Progress)
    assert (events[0].stage, events[0].loss) == ("stepping", 0.5)
    assert events[-1].adapter == ADAPTER


def test_a_cut_watch_goes_on_without_losing_or_repeating_an_event(client, trainer):
    trainer.events = [*(progress(sequence) for sequence in range(1, 9)), ended(9)]
    trainer.cut_after = [2, 3, 8]
    assert sequences(list(client.get_training("t1").events())) == list(range(1, 10))
    assert [request.after_sequence for request in trainer.requests["WatchTraining"]] == [0, 2, 3, 8]


def test_a_watch_begins_after_the_sequence_asked_for(client, trainer):
    trainer.events = [progress(1), progress(2), ended(3)]
    assert sequences(list(client.get_training("t1").events(after=2))) == [3]


def test_a_silent_server_is_asked_again(client, trainer):
    trainer.events = [progress(1), progress(2), ended(3)]
    trainer.silent_after = [2]
    assert sequences(list(client.get_training("t1").events())) == [1, 2, 3]
    assert [request.after_sequence for request in trainer.requests["WatchTraining"]] == [0, 2]


def test_heartbeats_keep_a_quiet_watch_open(client, trainer):
    trainer.events, trainer.quiet_heartbeats = [ended(1)], 8
    assert sequences(list(client.get_training("t1").events())) == [1]
    assert len(trainer.requests["WatchTraining"]) == 1


def test_a_stream_that_ends_before_the_training_is_taken_up_again(client, trainer):
    trainer.events = [progress(1)]
    events = client.get_training("t1").events()
    assert next(events).sequence == 1
    trainer.events = [progress(1), ended(2)]
    assert sequences(list(events)) == [2]


def test_a_hole_in_the_events_is_a_defect_of_the_server(client, trainer):
    trainer.events = [progress(1), progress(3)]
    with pytest.raises(personae.ServerDefect, match="event 2"):
        list(client.get_training("t1").events())


def test_a_server_that_stays_silent_exhausts_the_patience(connect, trainer_address, trainer):
    trainer.events, trainer.silent_after = [progress(1), progress(2)], [1, 2]
    patience = personae.Patience(silence_s=0.2, outage_s=0.1, first_pause_s=0.2)
    with (
        connect(trainer_address, patience=patience) as client,
        pytest.raises(personae.Unavailable, match="nothing for"),
    ):
        list(client.get_training("t1").events())


def test_waiting_gives_the_adapter_and_shows_every_event(client, trainer):
    trainer.events = [progress(1), ended(2)]
    seen = []
    adapter = client.get_training("t1").wait(on_event=seen.append)
    assert sequences(seen) == [1, 2]
    assert (adapter.name, adapter.prompt("happy")) == (ADAPTER, "a picture of sks character, happy")


def test_what_was_measured_is_in_the_events_and_in_the_adapter(client, trainer):
    trainer.events = [evaluated(1), ended(2)]
    trainer.adapter.evaluation.CopyFrom(evaluation())
    seen = []
    adapter = client.get_training("t1").wait(on_event=seen.append)
    assert isinstance(seen[0], personae.Evaluated)
    assert seen[0].evaluation == adapter.evaluation
    # Nothing is not the same as zero.
    assert adapter.evaluation == personae.Evaluation("eye-1", 0.71, 0.0, 0.8, None)
    assert adapter.evaluation.summary() == "likeness 0.71, obedience 0 %, memorisation 0.8"


def test_samples_are_pictures_and_validations_say_which_is_the_best(client, trainer):
    trainer.events = [validated(1, 10, 0.5, True), sample_ready(2, 10, memorisation=0.0), ended(3)]
    best, sample, _ = client.get_training("t1").events()
    assert (best.step, best.loss, best.best) == (10, 0.5, True)
    assert sample.picture().getpixel((0, 0)) == (255, 0, 0)
    assert (sample.prompt, sample.seed, sample.memorisation) == ("a cat", 7, 0.0)
    assert sample._repr_png_() == png()
    # People print events; nobody wants to read a file's bytes.
    assert "PNG" not in repr(sample)


def test_an_adapter_that_nobody_judged_has_no_evaluation(client, trainer):
    assert client.get_adapter("micah").evaluation is None
    assert personae.Evaluation("eye-1", None, None, None, None).summary() == "nothing could be measured"


def test_waiting_for_a_failed_training_raises_its_reason(client, trainer):
    trainer.events = [ended(1, "FAILED", reason="NON_FINITE_LOSS", message="the loss became infinite")]
    with pytest.raises(personae.TrainingFailed, match="became infinite") as raised:
        client.get_training("t1").wait()
    assert raised.value.reason == "NON_FINITE_LOSS"


def test_waiting_for_a_cancelled_training_says_so(client, trainer):
    trainer.events = [ended(1, "CANCELLED")]
    with pytest.raises(personae.TrainingCancelled):
        client.get_training("t1").wait()


def test_a_training_can_be_asked_to_stop_and_looked_at_again(client, trainer):
    training = client.get_training("t1")
    training.cancel()
    assert training.refresh().state == "queued"
    assert [request.name for request in trainer.requests["CancelTraining"]] == [TRAINING]


def test_a_watch_that_is_left_ends_at_the_server_too(client, trainer):
    trainer.events, trainer.silent_after = [progress(1), progress(2)], [1]
    events = client.get_training("t1").events()
    assert next(events).sequence == 1
    events.close()
    assert trainer.watch_over.wait(5)


def test_a_repeated_mutation_carries_the_same_request_id(client, trainer):
    trainer.instead["CreateTraining"] = [unavailable(), unavailable()]
    training = client.train("projects/default/datasets/d1", name="micah", rank=4, targets="attention")
    ids = [request.request_id for request in trainer.requests["CreateTraining"]]
    assert training.name == TRAINING
    assert len(ids) == 3
    assert len(set(ids)) == 1
    assert len(ids[0]) == 36


def test_two_mutations_carry_different_request_ids(client, trainer):
    for _ in range(2):
        client.train("projects/default/datasets/d1", name="micah")
    first, second = trainer.requests["CreateTraining"]
    assert first.request_id != second.request_id


def test_a_repeat_waits_as_long_as_the_server_asks(client, trainer, pauses):
    trainer.instead["GetTraining"] = [unavailable(retry_info(0.75)), unavailable()]
    client.get_training("t1")
    assert pauses[0] == 0.75
    assert pauses[1] < 0.1


def test_an_address_where_nobody_listens_is_unavailable(connect):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        patience = personae.Patience(unanswered_s=0.2)
        with connect(address, patience=patience) as client, pytest.raises(personae.Unavailable):
            client.get_training("t1")


def test_a_server_that_has_answered_is_waited_for_as_long_as_a_restart_takes(connect, trainer_address, trainer):
    patience = personae.Patience(unanswered_s=0.1, outage_s=5)
    trainer.instead["GetTraining"] = [unavailable(retry_info(0.3))]
    with connect(trainer_address, patience=patience) as client:
        with pytest.raises(personae.Unavailable):
            client.get_training("t1")
        client.get_training("t1")
        trainer.instead["GetTraining"] = [unavailable(retry_info(0.3))]
        client.get_training("t1")


def test_a_closed_client_waits_for_no_stream(connect, trainer_address, trainer):
    trainer.events, trainer.silent_after = [progress(1), progress(2)], [1]
    with connect(trainer_address) as client:
        events = client.get_training("t1").events()
        next(events)
        client.close()
        with pytest.raises(personae.Unavailable):
            next(events)


def test_a_service_that_was_not_given_is_named(connect):
    with connect(inference="127.0.0.1:1") as client, pytest.raises(personae.InvalidRequest, match="trainer"):
        client.get_training("t1")
