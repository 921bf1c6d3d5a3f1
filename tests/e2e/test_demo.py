"""`personae demo` as `make demo` runs it: the sheet it ends with, and that nothing of it is left, whoever ends it."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from personae.cli import local_stack

PERSONAE = Path(sys.executable).with_name("personae")
STOP_WITHIN_S = 60
DEMO_WITHIN_S = 900


@contextmanager
def demo(output: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A running demo, and the mark that every process it starts carries in its environment."""
    mark = f"DEMO_MARK={uuid.uuid4()}"
    name, _, value = mark.partition("=")
    process = subprocess.Popen(
        [PERSONAE, "demo", "--output", output],
        env=os.environ | {name: value},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process, mark
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(STOP_WITHIN_S)
        assert process.stdout is not None
        process.stdout.close()


def marked(mark: str) -> list[str]:
    """Command lines of the processes that carry the mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            # It ended in the meantime, or is somebody else's.
            continue
    return found


def leftover_folders() -> set[Path]:
    return set((local_stack.checkout() / ".local").glob("demo-*"))


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process_and_no_data(tmp_path: Path, signal_number: signal.Signals) -> None:
    before = leftover_folders()
    with demo(tmp_path / "sheet.png") as (process, mark):
        assert process.stdout is not None
        for line in process.stdout:
            if "pictures accepted" in line:
                break
        else:
            raise AssertionError("the demo ended by itself")
        assert len(marked(mark)) >= 4
        process.send_signal(signal_number)
        said = process.stdout.read()
        assert process.wait(STOP_WITHIN_S) == 130, said
        assert marked(mark) == []
    assert "Traceback" not in said
    assert leftover_folders() == before


@pytest.mark.slow
@pytest.mark.timeout(DEMO_WITHIN_S)
def test_the_demo_ends_with_the_path_of_its_sheet_and_has_stopped_everything(tmp_path: Path) -> None:
    before = leftover_folders()
    with demo(tmp_path / "sheet.png") as (process, mark):
        said, _ = process.communicate(timeout=DEMO_WITHIN_S)
        assert process.returncode == 0, said
        assert marked(mark) == []
    assert said.strip().splitlines()[-1] == str(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 900
    assert leftover_folders() == before
