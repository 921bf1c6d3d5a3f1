"""What a Dockerfile would put into its image, found without a container engine: its instructions and its COPY lines.

Its one rule: a file counts only where the build context holds it, which is what .dockerignore lets through.
"""

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tests.manifests.rendered import REPOSITORY

IMAGES = REPOSITORY / "k8s" / "images"


@dataclass(frozen=True)
class Copy:
    """One source of a COPY instruction: a path of the build context, and where it goes in the image."""

    source: PurePosixPath
    target: PurePosixPath


@dataclass(frozen=True)
class Dockerfile:
    """The instructions of each stage as (instruction, arguments), what stands before the first FROM as a stage too."""

    stages: list[list[tuple[str, str]]]

    @classmethod
    def read(cls, service: str) -> "Dockerfile":
        text = re.sub(r"(?m)^\s*#.*\n", "", (IMAGES / f"{service}.Dockerfile").read_text())
        stages: list[list[tuple[str, str]]] = [[]]
        for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
            instruction, _, arguments = line.strip().partition(" ")
            if instruction == "FROM":
                stages.append([])
            if instruction:
                stages[-1].append((instruction, arguments.strip()))
        return cls(stages)

    def all(self, instruction: str) -> list[str]:
        """The arguments of every such instruction of the last stage, which is what ships."""
        return [arguments for found, arguments in self.stages[-1] if found == instruction]

    def arguments(self) -> dict[str, str]:
        """The defaults of every ARG."""
        pairs = [arguments for stage in self.stages for found, arguments in stage if found == "ARG"]
        return dict(pair.split("=", 1) for pair in pairs)

    def environment(self) -> dict[str, str]:
        """What ENV sets in the last stage."""
        return dict(pair.split("=", 1) for arguments in self.all("ENV") for pair in shlex.split(arguments))

    def entry_point(self) -> list[str]:
        """The program and its arguments; the form without a shell, which would keep SIGTERM from the service."""
        (arguments,) = self.all("ENTRYPOINT")
        return list(json.loads(arguments))

    def copies(self, stage: int = -1) -> list[Copy]:
        """What a stage copies from the build context."""
        found: list[Copy] = []
        folder = PurePosixPath("/")
        for instruction, arguments in self.stages[stage]:
            if instruction == "WORKDIR":
                folder /= arguments
            elif instruction == "COPY" and not arguments.startswith("--from="):
                *sources, target = shlex.split(arguments)
                found += [Copy(PurePosixPath(source), folder / target) for source in sources]
        return found


def ignored(path: PurePosixPath) -> bool:
    """Whether .dockerignore keeps a path out of the build context: the last rule that fits decides."""
    verdict = False
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        rule = line.strip().removeprefix("!")
        if rule and not rule.startswith("#") and any(_fits(rule, str(place)) for place in (path, *path.parents)):
            verdict = not line.startswith("!")
    return verdict


def sources(copy: Copy) -> list[PurePosixPath]:
    """The files of the build context that a COPY brings."""
    place = REPOSITORY / copy.source
    paths = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    relative = [PurePosixPath(path.relative_to(REPOSITORY)) for path in paths]
    return [path for path in relative if not ignored(path)]


def build(dockerfile: Dockerfile, root: Path) -> None:
    """Lay the files that the last stage copies from the build context below `root`, where the image would have them."""
    for copy in dockerfile.copies():
        place = root / copy.target.relative_to("/")
        for path in sources(copy):
            target = place if path == copy.source else place / path.relative_to(copy.source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / path, target)


def _fits(rule: str, path: str) -> bool:
    pattern = re.escape(rule).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
    return re.fullmatch(pattern, path) is not None
