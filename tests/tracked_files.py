"""The files of the repository, as git knows them: tracked, or new and not ignored."""

import subprocess
from pathlib import Path


def tracked(folder: Path, *patterns: str) -> list[Path]:
    """Paths below a folder, relative to it, that exist and match one of the patterns, or all."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(line) for line in listed.stdout.splitlines() if (folder / line).is_file()]
