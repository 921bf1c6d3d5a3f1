"""A folder in which a page's blocks run as they stand there, in order, against services that run.

Two things are changed on the way: addresses become those of the services, and trainings get two steps.
"""

import ast
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from personae.cli import local_stack
from tests.docs.blocks import ROOT, Block
from tests.real_store import free_ports

RUN_S = 300.0
START_S = 60.0
COPIED = {"examples", "k8s"}
"""What pages write into or install beside; all else of the repository is linked."""


class Sandbox:
    """One page's folder, variables and running programs."""

    def __init__(self, folder: Path, stack: local_stack.Running) -> None:
        self.folder = folder
        self._stack = stack
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._ports: dict[str, str] = {}
        self._running: list[subprocess.Popen[bytes]] = []
        for source in ROOT.iterdir():
            if source.name in COPIED:
                shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("node_modules"))
            elif not source.name.startswith("."):
                (folder / source.name).symlink_to(source)
        (folder / ".venv").symlink_to(sys.prefix)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PERSONAE_")}
        self.environment = inherited | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}",
            "PERSONAE_TRAINER_ADDRESS": stack.trainer,
            "PERSONAE_INFERENCE_ADDRESS": stack.inference,
        }

    def run(self, block: Block) -> None:
        """Run a block to its end, or until it listens; an AssertionError shows what a failed one said."""
        text = self._adapted(block)
        if block.mark == "file":
            place = self.folder / block.marked
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        elif block.mark == "keeps running":
            self._start(block, text)
        elif block.language == "python":
            tree = ast.fix_missing_locations(_TwoSteps().visit(ast.parse(text, str(block))))
            with contextlib.chdir(self.folder):
                exec(compile(tree, str(block), "exec"), self._names)
        else:
            ran = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=RUN_S,
                check=False,
            )
            assert ran.returncode == 0, f"{block}:\n{text}\n{ran.stdout}{ran.stderr}"

    def _start(self, block: Block, text: str) -> None:
        log = self.folder / f"line-{block.line}.log"
        with log.open("w") as output:
            # A group of its own: what it started goes with it.
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append(process)
        host, _, port = self._with_ports(block.marked).rpartition(":")
        give_up = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                return
            assert process.poll() is None, f"{block} ended:\n{log.read_text()}"
            assert time.monotonic() < give_up, f"{block} does not listen:\n{log.read_text()}"
            time.sleep(0.05)

    def _adapted(self, block: Block) -> str:
        """The block with the addresses that there are, and commands that train briefly."""
        if block.mark == "keeps running":
            self._ports.setdefault(block.marked.rpartition(":")[2], str(free_ports(1)[0]))
        text = self._with_ports(block.text)
        for documented, port in (("50051", self._stack.trainer), ("50052", self._stack.inference)):
            text = re.sub(rf"\b(127\.0\.0\.1|localhost):{documented}\b", port, text)
        return shortened(text) if block.language == "sh" else text

    def _with_ports(self, text: str) -> str:
        for documented, port in self._ports.items():
            text = re.sub(rf"\b{documented}\b", port, text)
        return text

    def stop(self) -> None:
        """End what keeps running."""
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(START_S)


def shortened(text: str) -> str:
    """The text with two steps wherever it says or leaves out how many."""
    commands = re.split(r"(?<!\\)\n", re.sub(r"(\bsteps[ =])\d+", r"\g<1>2", text))
    return "\n".join(_shortened_command(command) for command in commands)


def _shortened_command(command: str) -> str:
    trains = re.search(r"\bpersonae train\b|\bnode personae\.mjs\b", command) and "--dry-run" not in command
    return f"{command} --steps 2" if trains and "--steps" not in command else command


class _TwoSteps(ast.NodeTransformer):
    """Gives every call of `train` two steps."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "train":
            kept = [keyword for keyword in node.keywords if keyword.arg != "steps"]
            node.keywords = [*kept, ast.keyword("steps", ast.Constant(2))]
        return node


@contextlib.contextmanager
def sandbox(folder: Path, stack: local_stack.Running) -> Iterator[Sandbox]:
    """A sandbox, until the block is left."""
    made = Sandbox(folder, stack)
    try:
        yield made
    finally:
        made.stop()
