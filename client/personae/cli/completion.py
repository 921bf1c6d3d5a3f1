"""What the shell completes with the Tab key beyond commands and options: names that the trainer knows.

Its one rule: a person waits for the answer, so a server that does not answer at once completes nothing, in silence.
"""

import os
from collections.abc import Callable, Iterable

import typer

import personae
from personae.cli.access import said_before
from personae.cli.defaults import TRAINER
from personae.cli.terminal import short

_MOST = 200
_QUICK = personae.Patience(call_s=1.0, unanswered_s=0.0)


def adapters(context: typer.Context, incomplete: str) -> list[str]:
    """Adapter ids."""
    return _matching(
        context, incomplete, lambda client: (short(found.name).partition("/")[0] for found in client.adapters())
    )


def datasets(context: typer.Context, incomplete: str) -> list[str]:
    """Dataset ids."""
    return _matching(context, incomplete, lambda client: (short(found.name) for found in client.datasets()))


def trainings(context: typer.Context, incomplete: str) -> list[str]:
    """Training ids."""
    return _matching(context, incomplete, lambda client: (short(found.name) for found in client.trainings()))


def _matching(context: typer.Context, incomplete: str, names: Callable[[personae.Client], Iterable[str]]) -> list[str]:
    """At most so many that a screen holds them."""
    found: list[str] = []
    # Commands that need the inference service alone have no option for the other.
    trainer = context.params.get("trainer") or os.environ.get("PERSONAE_TRAINER_ADDRESS") or TRAINER
    try:
        with personae.Client(
            trainer,
            project=context.params.get("project") or "default",
            patience=_QUICK,
            **said_before(context.find_root().params),
        ) as client:
            for name in names(client):
                if name.startswith(incomplete):
                    found.append(name)
                if len(found) == _MOST:
                    break
    except (personae.PersonaeError, OSError):
        return found
    return found
