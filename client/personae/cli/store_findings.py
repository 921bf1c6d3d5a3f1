"""What `personae doctor` says of the object store: what `service_kit.verify_store --quick` saw of it."""

import sys
from collections.abc import Iterator
from pathlib import Path

from personae.cli.finding import Finding, Verdict
from personae.cli.told import Telling
from personae.cli.verify_store import WORRYING_CLOCK_S

_REFUSED_CLOCK_S = 15 * 60


def external(verification: Telling, endpoint: str) -> Iterator[Finding]:
    """A store that is named: whether it answers, lets us in, has the bucket, keeps conditions, and what time it has."""
    passed = complaints = 0
    concluded = False
    for told in verification.lines():
        match told["event"]:
            case "store":
                yield Finding("object store", "ok", f"bucket {told['bucket']} at {told['endpoint']}")
                if told["clock_ahead_s"] is not None:
                    yield clock(told["clock_ahead_s"])
            case "check" if told["verdict"] == "passed":
                passed += 1
            case "check":
                complaints += 1
                remedy = f"otherwise {told['needed_for']}: see `personae verify-store` and docs/object-stores.md"
                yield Finding(f"store {told['check']}", "wrong", told["seen"], remedy)
            case "verdict":
                concluded = True
    if not concluded:
        # As the services say it at their start: what was seen, then what to do.
        found, _, remedy = str(verification.failure()).removeprefix("cannot verify: ").rpartition("; ")
        yield Finding("object store", "wrong", found or endpoint, remedy)
    elif not complaints:
        yield Finding("conditional writes", "ok", f"{passed} quick checks passed; `personae verify-store` looks harder")


def clock(ahead_s: float) -> Finding:
    """A finding on a store's clock that is so far ahead of ours."""
    found = f"the store's is {ahead_s:+.0f} s from ours"
    if abs(ahead_s) <= WORRYING_CLOCK_S:
        return Finding("clock", "ok", found)
    verdict: Verdict = "wrong" if abs(ahead_s) >= _REFUSED_CLOCK_S else "warning"
    return Finding("clock", verdict, found, "set both by NTP: stores refuse requests that are 15 minutes off")


def local() -> Finding:
    """Where no store is named: whether `personae up` can start one here."""
    program = Path(sys.executable).with_name("weed")
    if program.is_file():
        return Finding("object store", "ok", "none is named; `personae up` starts one here")
    remedy = "run `make demo`, which installs it, or set PERSONAE_S3_ENDPOINT to a store of yours"
    return Finding("object store", "wrong", f"none is named, and {program} is missing", remedy)
