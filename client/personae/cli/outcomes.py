"""How a command ends: the exit code of everything that can go wrong, and what is written about it.

People get a sentence on stderr; with --json, stderr gets one JSON object and nothing else.
"""

import json
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Protocol

from personae import errors

FAILED, WRONG_REQUEST, INTERRUPTED = 1, 2, 130

_BY_ERROR: dict[type[Exception], int] = {
    errors.InvalidRequest: WRONG_REQUEST,
    errors.TooLarge: WRONG_REQUEST,
    errors.NotFound: 3,
    errors.AlreadyExists: 4,
    errors.PreconditionFailed: 4,
    errors.Unauthenticated: 5,
    errors.PermissionDenied: 5,
    errors.Unavailable: 6,
    errors.Busy: 6,
    errors.DeadlineExceeded: 6,
}
EXIT_CODES = {
    0: "done",
    FAILED: "it failed: the training, a check of doctor or verify-store, this machine",
    WRONG_REQUEST: "it was asked for in a wrong way: mend what the message names",
    3: "what was named does not exist",
    4: "it exists already, or its state does not allow this now",
    5: "not let in: another token, certificate or role is needed",
    6: "nobody answers, or the server is full or slow: the same may work later",
    INTERRUPTED: "interrupted",
}
"""What each exit code means, for whoever runs a command."""


class Interrupted(Exception):
    """Ctrl-C or SIGTERM came. The text says what was left behind and how to go on."""


class BadUsage(Protocol):
    """What typer raises for words that make no command."""

    def format_message(self) -> str: ...


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether the command was asked for JSON; known before its words are understood, for errors in these."""
    return "--json" in takewhile(lambda word: word != "--", arguments)


def exit_code(error: Exception) -> int:
    """The exit code of an error; what is of no class of its own has failed."""
    if isinstance(error, Interrupted):
        return INTERRUPTED
    return next((code for kind, code in _BY_ERROR.items() if isinstance(error, kind)), FAILED)


def report(error: Exception, *, as_json: bool) -> int:
    """Write the error to stderr and return the exit code."""
    code = exit_code(error)
    if as_json:
        violations = error.violations if isinstance(error, errors.InvalidRequest) else ()
        _write_object(
            type(error).__name__,
            str(error),
            code,
            reason=getattr(error, "reason", ""),
            violations=[{"field": found.field, "description": found.description} for found in violations],
            retry_after_s=getattr(error, "retry_after_s", None),
        )
    elif isinstance(error, Interrupted):
        print(error, file=sys.stderr)
    else:
        print(f"Error: {error}", file=sys.stderr)
        if isinstance(error, errors.Unavailable):
            print(
                "Is the server running, and where --trainer or --inference say? `personae up` starts one here, "
                "`personae doctor` tells what is wrong.",
                file=sys.stderr,
            )
    return code


def report_usage(error: BadUsage) -> int:
    """Write as JSON what is wrong with the words of a command; for people, typer does that itself."""
    _write_object("UsageError", error.format_message(), WRONG_REQUEST)
    return WRONG_REQUEST


def _write_object(
    kind: str,
    message: str,
    code: int,
    *,
    reason: str = "",
    violations: Sequence[dict[str, str]] = (),
    retry_after_s: float | None = None,
) -> None:
    told: dict[str, Any] = {
        "type": kind,
        "message": message,
        "reason": reason,
        "violations": list(violations),
        "retry_after_s": retry_after_s,
        "exit_code": code,
    }
    print(json.dumps({"error": told}), file=sys.stderr)
