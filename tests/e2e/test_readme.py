"""Every command and snippet of the README, run as it stands there, in a copy of the tree and against its own services.

Two things are changed on the way: addresses become free ports, and trainings get two steps instead of the default.
`make` targets are only resolved, since this test is part of one. The other pages: tests/docs.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from personae.cli import local_stack
from tests.docs.blocks import blocks as blocks_of
from tests.docs.own_files import write_pictures
from tests.real_store import free_ports
from tests.tracked_files import tracked

ROOT = Path(__file__).parents[2]
RUN_S = 240.0


def blocks(language: str, *words: str) -> list[str]:
    """The README's code blocks in a language that contain all the words, but for those that need a cluster."""
    return [
        block.text
        for block in blocks_of("README.md")
        if block.language == language and block.marked != "cluster" and all(word in block.text for word in words)
    ]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as git would hand it to a newcomer, with this environment as its `.venv` and pictures of one's own."""
    copy = tmp_path_factory.mktemp("newcomer")
    for name in tracked(ROOT):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    (copy / ".venv").symlink_to(sys.prefix)
    write_pictures(copy / "pictures")
    return copy


@pytest.fixture(scope="module")
def environment(copy: Path) -> dict[str, str]:
    """Where the copy's services shall listen, and that its own code is to be run."""
    trainer, inference, trainer_health, inference_health, trainer_metrics, inference_metrics, store = free_ports(7)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PERSONAE_")}
    return inherited | {
        "PYTHONPATH": f"{copy}:{copy / 'client'}",
        "PERSONAE_TRAINER_ADDRESS": f"127.0.0.1:{trainer}",
        "PERSONAE_INFERENCE_ADDRESS": f"127.0.0.1:{inference}",
        "PERSONAE_TRAINER_HEALTH_ADDRESS": f"127.0.0.1:{trainer_health}",
        "PERSONAE_INFERENCE_HEALTH_ADDRESS": f"127.0.0.1:{inference_health}",
        "PERSONAE_TRAINER_METRICS_ADDRESS": f"127.0.0.1:{trainer_metrics}",
        "PERSONAE_INFERENCE_METRICS_ADDRESS": f"127.0.0.1:{inference_metrics}",
        "PERSONAE_STORE_PORT": str(store),
    }


@pytest.fixture(scope="module")
def up(copy: Path, environment: dict[str, str]) -> Iterator[None]:
    """The README's `personae up`, until the end of the module."""
    (command,) = blocks("sh", "personae up")
    with (copy / "up.log").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=copy, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_serving(process, environment, copy / "up.log")
        yield
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def _wait_until_serving(process: subprocess.Popen[bytes], environment: dict[str, str], log: Path) -> None:
    while process.poll() is None:
        asked = run_python(
            "import os, grpc\n"
            "for name in ('TRAINER', 'INFERENCE'):\n"
            "    channel = grpc.insecure_channel(os.environ[f'PERSONAE_{name}_ADDRESS'])\n"
            "    grpc.channel_ready_future(channel).result(60)\n",
            log.parent,
            environment,
        )
        if asked.returncode == 0:
            return
    raise AssertionError(f"`personae up` ended:\n{log.read_text()}")


def run_python(text: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )


def run_shell(text: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )


def test_the_copy_is_what_runs(copy: Path, environment: dict[str, str]) -> None:
    ran = run_python("import trainer_service, personae; print(trainer_service.__file__)", copy, environment)
    assert ran.stdout.startswith(str(copy)), ran.stderr


def test_the_first_block_is_two_make_targets_that_exist(copy: Path, environment: dict[str, str]) -> None:
    (first,) = blocks("sh", "make demo")
    assert re.findall(r"^make \w+", first, re.MULTILINE) == ["make demo", "make test"]
    ran = run_shell("make --dry-run demo test", copy, environment)
    assert ran.returncode == 0, ran.stderr


def test_ones_own_pictures_are_trained_and_generated_with_the_readmes_commands(
    copy: Path, environment: dict[str, str], up: None
) -> None:
    (commands,) = blocks("sh", "personae train")
    assert "--name mia" in commands
    ran = run_shell(commands.replace("--name mia", "--name mia --steps 2"), copy, environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "<title>mia, version 1: training report</title>" in (copy / "mia-1.html").read_text()
    (path,) = (copy / "out").glob("*.png")
    with Image.open(path) as image:
        assert image.size == (64, 64)


@pytest.mark.slow
def test_the_python_snippets_run(copy: Path, environment: dict[str, str], up: None) -> None:
    snippets = blocks("python")
    assert snippets
    for number, snippet in enumerate(snippets):
        text = snippet.replace("127.0.0.1:50051", environment["PERSONAE_TRAINER_ADDRESS"])
        text = text.replace("127.0.0.1:50052", environment["PERSONAE_INFERENCE_ADDRESS"])
        text, trainings = re.subn(r'name="([\w-]+)"', r'name="\1", steps=2', text)
        assert trainings == 1, f"snippet {number} trains nothing"
        ran = run_python(text, copy, environment)
        assert ran.returncode == 0, ran.stderr
    assert len(list(copy.glob("mia-*.png"))) >= 4


def test_every_block_is_run_or_says_why_not() -> None:
    known = blocks("sh", "make demo") + blocks("sh", "personae up") + blocks("sh", "personae train") + blocks("python")
    assert [
        str(block) for block in blocks_of("README.md") if block.marked != "cluster" and block.text not in known
    ] == []


def test_the_checkout_is_where_the_readme_lies() -> None:
    assert local_stack.checkout() == ROOT
