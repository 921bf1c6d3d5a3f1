"""Completion in a real bash, by the script that `personae --show-completion bash` prints."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_process import environment

PERSONAE = Path(sys.executable).with_name("personae")
# Each word on the command line is an argument; the last is the one that Tab is pressed in.
PRESS_TAB = """
eval "$SCRIPT"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_personae_completion personae
printf '%s\\n' "${COMPREPLY[@]}"
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")


def run(env, *words):
    path = f"{PERSONAE.parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(words, env=env | {"PATH": path}, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.fixture(scope="module")
def script():
    # Typer would ask for the shell that this runs in, which under make is another.
    told = environment() | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    return run(told, PERSONAE, "--show-completion", "bash")


def completed(script, env, *words):
    return run(env | {"SCRIPT": script}, "bash", "--norc", "-c", PRESS_TAB, "bash", "personae", *words).split()


def test_commands_and_options_are_completed(script):
    assert completed(script, environment(), "do") == ["doctor"]
    assert completed(script, environment(), "watch", "--on-i") == ["--on-interrupt"]


def test_adapters_are_completed_from_the_server(script, trainer, trainer_address):
    env = environment(PERSONAE_TRAINER_ADDRESS=trainer_address)
    assert completed(script, env, "generate", "'a cat'", "--adapter", "mi") == ["micah"]
    assert len(trainer.requests["ListAdapters"]) == 1


def test_a_server_that_is_away_completes_nothing_in_silence(script):
    assert completed(script, environment(PERSONAE_TRAINER_ADDRESS="127.0.0.1:1"), "datasets", "d") == []
