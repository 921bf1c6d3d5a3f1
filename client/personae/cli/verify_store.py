"""The command `verify-store`: the services' own verification of an object store, told to people.

Its one rule: what is shown is what the child saw; nothing is judged here.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from personae.cli import local_stack
from personae.cli.child import Child
from personae.cli.local_stack import StackError
from personae.cli.terminal import err, out

_STOP_S = 30.0
"""Longest wait for the child to delete what it wrote."""
_LOOK_AGAIN_S = 0.05
# Stores refuse signatures whose time is 15 minutes off.
_WORRYING_CLOCK_S = 60
_MARKS = {"passed": "[green]✓[/green]", "failed": "[red]✗[/red]", "unanswered": "[yellow]?[/yellow]"}


def verify_store(
    rounds: Annotated[int, typer.Option(min=1, help="How often each race between twelve writers is run.")] = 10,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, as the verification writes them.")
    ] = False,
) -> None:
    """Prove that an object store keeps what the services rest on.

    Reads the variables PERSONAE_S3_… as the services do. Conditional writes are raced, reads and lists asked for right
    after writes; everything is written below verify/ and deleted again. Takes a minute; exit code 0 where all was
    proven, else 1. Needs a source checkout.
    """
    verdicts = []
    for line in _lines(rounds):
        if as_json:
            print(line, flush=True)
        told = json.loads(line)
        if told["event"] == "store" and not as_json:
            _show_store(told)
        elif told["event"] == "check":
            verdicts.append(told["verdict"])
            if not as_json:
                _show_check(told)
        elif told["event"] == "verdict" and not as_json:
            _show_verdict(verdicts)
    if set(verdicts) != {"passed"}:
        raise typer.Exit(1)


def _lines(rounds: int) -> Iterator[str]:
    """What the verification writes, line by line as it comes. Raises StackError when it ends without a verdict."""
    root = local_stack.checkout()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PERSONAE_")}
    settings = {name: value for name, value in os.environ.items() if name.startswith("PERSONAE_S3_")}
    command = [sys.executable, "-m", "service_kit.verify_store", "--rounds", str(rounds)]
    with tempfile.TemporaryDirectory() as folder:
        child = Child("verify-store", command, Path(folder), inherited | settings, root)
        try:
            with child.output.open() as output:
                while True:
                    # Before the read: what it wrote before its end is read then.
                    ended = child.exit_code is not None
                    while (line := _whole_line(output)) is not None:
                        yield line
                    if ended:
                        break
                    time.sleep(_LOOK_AGAIN_S)
            if child.exit_code not in (0, 1) or '"event": "verdict"' not in child.output.read_text():
                raise StackError(child.last_lines(1))
        finally:
            child.stop(_STOP_S)


def _whole_line(output: Any) -> str | None:
    """The next line, once it is whole."""
    place = output.tell()
    line: str = output.readline()
    if line.endswith("\n"):
        return line.rstrip("\n")
    output.seek(place)
    return None


def _show_store(told: dict[str, Any]) -> None:
    err.print(f"verifying bucket {told['bucket']} at {told['endpoint']}")
    ahead_s = told["clock_ahead_s"]
    if ahead_s is not None and abs(ahead_s) > _WORRYING_CLOCK_S:
        err.print(
            f"[yellow]Its clock is {ahead_s:+.0f} s from this machine's: stores refuse requests that are 15 minutes "
            "off. Set both by NTP.[/yellow]"
        )


def _show_check(told: dict[str, Any]) -> None:
    out.print(f"{_MARKS[told['verdict']]} {told['check']:<17} {told['promise']}", end="")
    if told["verdict"] == "passed":
        out.print(f" [dim]({told['seen']}, {told['duration_s']:.1f} s)[/dim]")
        return
    out.print()
    out.print(f"    seen: {told['seen']}", markup=False)
    out.print(f"    otherwise {told['needed_for']}", markup=False)


def _show_verdict(verdicts: list[str]) -> None:
    if "failed" in verdicts:
        out.print(
            "This store is not fit for Personae: the services refuse to start on it. Use another store, or a "
            "release of this one with atomic conditional writes (docs/object-stores.md)."
        )
    elif "unanswered" in verdicts:
        out.print(
            "Not proven: the store left checks unanswered. See whether it is reachable and well, and verify again."
        )
    else:
        out.print("This store keeps everything that Personae needs of it.")
