"""The Node.js example, installed as its README says and run against real services: the contract alone is enough."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import personae
from base_models.catalog import BUNDLED
from personae.cli import local_stack
from tests.e2e.cutting_proxy import cutting_proxy

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "node"
PICTURES = BUNDLED["toon-64"] / "sets" / "toon-a" / "train"
RUN_S = 120.0

Program = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with its packages; a registry that cannot be reached is a failure."""
    folder = tmp_path_factory.mktemp("node") / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    npm = Path(sys.executable).with_name("npm")
    subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=RUN_S)
    return folder


@pytest.fixture
def program(installed: Path, stack: local_stack.Running, tmp_path: Path) -> Program:
    """Starts the example, with every option but those given as its README has it."""

    def start(name: str, *, trainer: str = stack.trainer, steps: str = "2") -> subprocess.Popen[str]:
        options = {"trainer": trainer, "inference": stack.inference, "pictures": str(PICTURES), "name": name}
        options |= {"out": str(tmp_path / "out"), "steps": steps, "protos": str(ROOT / "protos")}
        return subprocess.Popen(
            [Path(sys.executable).with_name("node"), "personae.mjs", *(f"--{key}={options[key]}" for key in options)],
            cwd=installed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.mark.slow
def test_the_protos_alone_are_enough_to_train_watch_and_generate(
    program: Program, client: personae.Client, tmp_path: Path
) -> None:
    with program("from-node") as process:
        said, _ = process.communicate(timeout=RUN_S)
    assert process.returncode == 0, said
    assert "16 pictures accepted, 0 refused" in said
    assert client.get_adapter("from-node").name in said
    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == ["0-happy.png", "1-sad.png", "2-surprised.png", "3-neutral.png"]
    for path in written:
        with Image.open(path) as picture:
            assert (picture.format, picture.size) == ("PNG", (64, 64))


@pytest.mark.slow
def test_a_cut_connection_loses_and_repeats_no_event(program: Program, stack: local_stack.Running) -> None:
    lines: list[str] = []
    with cutting_proxy(stack.trainer) as proxy, program("from-node-cut", trainer=proxy.address) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.startswith("2 "):
                proxy.cut()
        assert process.wait(RUN_S) == 0, "".join(lines)
    assert proxy.cuts > 0
    sequences = [int(line.split()[0]) for line in lines if line[0].isdigit() and "accepted" not in line]
    assert sequences == list(range(1, len(sequences) + 1))


def test_what_is_wrong_with_a_request_is_named_field_by_field(program: Program) -> None:
    with program("Not An Id", steps="-1") as process:
        said, _ = process.communicate(timeout=RUN_S)
    assert process.returncode == 1
    assert "INVALID_ARGUMENT" in said
    assert "\n  training.adapter_id: " in said
    assert "\n  training.config.steps: " in said
