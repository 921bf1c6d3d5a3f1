"""Ctrl-C: a real SIGINT to a real process, which says what goes on, what was saved and what is missing."""

import json
import signal

import pytest
from client_fakes import TRAINING, progress
from command_process import command, environment
from fake_inference import FakeInference

DATASET = "projects/default/datasets/d1"
WITHIN_S = 60


class Stalling(FakeInference):
    """Sends one image of those that were asked for, and then nothing."""

    def Generate(self, request, context):
        for message in super().Generate(request, context):
            yield message
            if message.WhichOneof("kind") == "image":
                self.fall_silent(context)
                return


@pytest.fixture
def inference():
    return Stalling()


@pytest.fixture
def addresses(trainer_address, inference_address):
    return environment(PERSONAE_TRAINER_ADDRESS=trainer_address, PERSONAE_INFERENCE_ADDRESS=inference_address)


def interrupted(process, lines):
    """Ctrl-C once so many lines have come; exit code, further standard output, standard error."""
    for _ in range(lines):
        assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=WITHIN_S)
    assert "Traceback" not in err
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("words", "lines"), [(["watch", "t1"], 1), (["train", DATASET, "--name=n", "--on-interrupt=detach"], 3)]
)
def test_a_training_goes_on_and_how_to_come_back_is_said(trainer, addresses, words, lines):
    trainer.events, trainer.silent_after = [progress(1)], [1]
    with command(*words, "--json", env=addresses) as process:
        code, out, err = interrupted(process, lines)
    error = json.loads(err)["error"]
    assert (code, out, error["type"], error["exit_code"]) == (130, "", "Interrupted", 130)
    assert error["message"].endswith(f"personae watch {TRAINING}")
    assert trainer.watch_over.wait(WITHIN_S)
    assert not trainer.requests["CancelTraining"]


def test_a_training_is_cancelled_where_that_was_asked_for(trainer, addresses):
    trainer.events, trainer.silent_after = [progress(1)], [1]
    with command("watch", "t1", "--on-interrupt", "cancel", "--json", env=addresses) as process:
        code, _, err = interrupted(process, 1)
    assert (code, json.loads(err)["error"]["message"]) == (130, f"Cancelled: {TRAINING}")
    assert [request.name for request in trainer.requests["CancelTraining"]] == [TRAINING]


def test_a_generation_keeps_what_was_saved_and_says_what_is_missing(inference, addresses, tmp_path):
    words = ["generate", "a cat", "a dog", "--seed=7", "--seed=8", "--output", tmp_path]
    with command(*words, env=addresses) as process:
        code, out, err = interrupted(process, 1)
    assert (code, out) == (130, "")
    assert f"1 of 4 images are saved in {tmp_path}" in err
    assert "'a cat': --seed 7 --seed 8" in err
    assert "'a dog': --seed 7\n" in err
    assert [path.name for path in tmp_path.iterdir()] == ["003-8.png"]


def test_seeds_that_the_server_chose_are_lost_with_their_images(inference, addresses, tmp_path):
    words = ["generate", "a", "--images-per-prompt=3", "--output", tmp_path]
    with command(*words, env=addresses) as process:
        code, _, err = interrupted(process, 1)
    assert code == 130
    assert "The other 2 cannot be asked for again" in err
