"""Runs the scripts of render/, which draw with DiceBear and resvg: the one place that knows of node."""

import subprocess
import sys
from pathlib import Path

_FOLDER = Path(__file__).parent / "render"


def run_renderer(script: str, *arguments: str | Path) -> None:
    """Run one of render/'s scripts, its pinned packages installed before its first run.

    Raises subprocess.CalledProcessError where either fails; what they say stands on stderr.
    """
    if not (_FOLDER / "node_modules").exists():
        subprocess.run([_program("npm"), "ci", "--no-audit", "--no-fund"], cwd=_FOLDER, check=True, stdout=sys.stderr)
    subprocess.run([_program("node"), _FOLDER / script, *arguments], check=True)


def _program(name: str) -> str | Path:
    # The wheel of the development environment stands beside this Python; elsewhere node is the machine's own.
    beside = Path(sys.executable).with_name(name)
    return beside if beside.exists() else name
