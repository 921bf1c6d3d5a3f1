"""The command `verify-store`: the services' own verification of an object store, told to people.

Its one rule: what is shown is what the child saw; nothing is judged here.
"""

from typing import Annotated, Any

import typer

from personae.cli import json_output
from personae.cli.terminal import err, out
from personae.cli.told import started, store_settings

# Stores refuse signatures whose time is 15 minutes off.
WORRYING_CLOCK_S = 60
_MARKS = {"passed": "[green]✓[/green]", "failed": "[red]✗[/red]", "unanswered": "[yellow]?[/yellow]"}


def verify_store(
    rounds: Annotated[int, typer.Option(min=1, help="How often each race between twelve writers is run.")] = 10,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print JSON alone, an object a line: {event: store, endpoint, bucket, clock_ahead_s}, {event: check, "
            "check, promise, verdict, seen, …} for each, last {event: verdict, passed}.",
        ),
    ] = False,
) -> None:
    """Prove that an object store keeps what the services rest on.

    Reads the variables PERSONAE_S3_… as the services do. Conditional writes are raced, reads and lists asked for right
    after writes; everything is written below verify/ and deleted again. Takes a minute; exit code 0 where all was
    proven, else 1. Needs a source checkout.
    """
    verdicts, concluded = [], False
    with started("service_kit.verify_store", ["--rounds", str(rounds)], store_settings()) as verification:
        for told in verification.lines():
            if as_json:
                json_output.write(told)
            match told["event"]:
                case "store":
                    _show_store(told)
                case "check":
                    verdicts.append(told["verdict"])
                    if not as_json:
                        _show_check(told)
                case "verdict":
                    concluded = True
                    if not as_json:
                        _show_verdict(verdicts)
        if not concluded:
            raise verification.failure()
    if set(verdicts) != {"passed"}:
        raise typer.Exit(1)


def _show_store(told: dict[str, Any]) -> None:
    err.print(f"verifying bucket {told['bucket']} at {told['endpoint']}")
    ahead_s = told["clock_ahead_s"]
    if ahead_s is not None and abs(ahead_s) > WORRYING_CLOCK_S:
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
