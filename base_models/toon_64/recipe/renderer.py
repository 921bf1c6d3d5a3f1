"""Runs the scripts of render/, which draw with DiceBear and resvg: the one place that knows of node."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

_FOLDER = Path(__file__).parent / "render"
_installing = threading.Lock()


def run_renderer(script: str, *arguments: str | Path) -> None:
    """Run one of render/'s scripts, its pinned packages installed before its first run.

    Threads may call it at the same time. Raises FileNotFoundError where there is no Node.js and
    subprocess.CalledProcessError where either fails; what they say stands on stderr.
    """
    with _installing:
        # npm writes this file last.
        if not (_FOLDER / "node_modules" / ".package-lock.json").exists():
            command = [_program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(command, cwd=_FOLDER, check=True, stdout=sys.stderr)
    subprocess.run([_program("node"), _FOLDER / script, *arguments], check=True)


def _program(name: str) -> str | Path:
    # The wheel of the development environment stands beside this Python; elsewhere node is the machine's own.
    beside = Path(sys.executable).with_name(name)
    found = beside if beside.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is neither beside {sys.executable} nor on PATH: install Node.js 20 or newer")
    return found
