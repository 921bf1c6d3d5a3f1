"""The pinned, hashed requirements of both images: `python -m k8s.images.lock write`, or `check` that they are fresh.

What goes in is pyproject.toml's groups, and what torch itself needs, as the installed torch says; torch stays out,
because which build of it serves (CPU, CUDA) is not ours to pin. The result is for the images' Python, on
Linux and x86-64.
"""

import subprocess
import sys
import tempfile
from importlib.metadata import requires
from pathlib import Path

from uv import find_uv_bin

REPOSITORY = Path(__file__).parents[2]
IMAGES = ("trainer", "inference")
# Ubuntu 24.04's, which the images' base is.
PYTHON = "3.12"


def main(argv: list[str]) -> int:
    """Write or check; 1 where a lock is not what would be written."""
    if argv not in (["write"], ["check"]):
        print("usage: python -m k8s.images.lock write|check", file=sys.stderr)
        return 2
    stale = []
    for image in IMAGES:
        path = lock_of(image)
        text = resolved(image, path.read_text() if path.exists() else "")
        if argv == ["write"]:
            path.write_text(text)
        elif path.read_text() != text:
            stale.append(path.name)
    if stale:
        print(f"{', '.join(stale)}: not what pyproject.toml resolves to; run `make lock`", file=sys.stderr)
    return 1 if stale else 0


def lock_of(image: str) -> Path:
    """The lock file of an image."""
    return Path(__file__).parent / f"{image}.lock"


def resolved(image: str, previous: str) -> str:
    """The lock's text. previous: a lock whose versions stay as far as they still fit."""
    with tempfile.TemporaryDirectory() as folder:
        output, beside, without = Path(folder, "lock"), Path(folder, "beside.txt"), Path(folder, "without.txt")
        output.write_text(previous)
        beside.write_text("\n".join(of_torch()))
        without.write_text("torch ; sys_platform == 'never'\n")
        subprocess.run(
            [
                find_uv_bin(), "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate",
                "--no-emit-index-url", "--no-emit-find-links", "--only-binary", ":all:",
                "--python-version", PYTHON, "--python-platform", "x86_64-manylinux_2_28",
                "--group", f"pyproject.toml:{image}", str(beside),
                "--overrides", str(without), "--output-file", str(output),
            ],
            cwd=REPOSITORY, check=True,
        )  # fmt: skip
        return output.read_text()


def of_torch() -> list[str]:
    """What torch needs of other people; CUDA's libraries come with it."""
    needed = [line for line in requires("torch") or [] if "extra ==" not in line]
    return [line for line in needed if not line.startswith(("nvidia", "triton", "cuda"))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
