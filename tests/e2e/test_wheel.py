"""The wheel, as people get it: the client and nothing else, in an environment that has nothing else either.

It is run with the newest releases of what it needs and with the oldest that it declares.
"""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from base_models.catalog import BUNDLED
from personae.cli import local_stack
from tests.tracked_files import tracked

ROOT = Path(__file__).parents[2]
PICTURES = BUNDLED["toon-64"] / "sets" / "style-dylan" / "train"
NEEDS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
RUN_S = 240.0
# Pillow's floor is a release of the first Python that has no wheel of it.
FIRST_PYTHON_WITHOUT_FLOORS = (3, 13)


def run(*command: str | Path) -> str:
    """What the command says; its failure fails the test with all of that."""
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=RUN_S)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}", ROOT)
    (wheel,) = folder.iterdir()
    return wheel


def floors() -> list[str]:
    """Each need of the client at the oldest release that it declares."""
    pinned = [re.sub(r"^([\w-]+)>=([\d.]+).*$", r"\1==\2", need) for need in NEEDS]
    assert all("==" in pin for pin in pinned)
    return pinned


def test_the_wheel_holds_the_client_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"personae"}
    sources = {str(path) for path in tracked(ROOT / "client")}
    assert {name for name in names if name.startswith("personae/")} == sources


@pytest.mark.slow
@pytest.mark.parametrize("pins", [[], floors()], ids=["newest", "floors"])
def test_the_wheel_alone_trains_and_generates(
    wheel: Path, stack: local_stack.Running, tmp_path: Path, pins: list[str], request: pytest.FixtureRequest
) -> None:
    if pins and sys.version_info >= FIRST_PYTHON_WITHOUT_FLOORS:
        pytest.skip(f"there are no wheels of {', '.join(pins)} for this Python")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", wheel, *pins)
    name = "from-wheel-" + request.node.callspec.id
    script = Path(__file__).with_name("installed_client.py")
    said = run(python, "-I", script, stack.trainer, stack.inference, PICTURES, name)
    assert set(pins) <= set(said.split())
    # Whoever uses it has its types.
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}/mypy"]
    run(*mypy, f"--python-executable={python}", script)
