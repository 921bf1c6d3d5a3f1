"""The command line: its commands, in the order in which `--help` lists them.

Each is a function in a file of its group: read the options, call the client, print what came of it.
"""

import inspect
from collections.abc import Callable

import typer

from personae.cli.access import access
from personae.cli.adapters import adapters, export
from personae.cli.comparing import compare
from personae.cli.datasets import datasets
from personae.cli.deleting import delete
from personae.cli.doctor import doctor
from personae.cli.generating import generate
from personae.cli.importing import import_adapter
from personae.cli.machine import demo, up
from personae.cli.models import models
from personae.cli.outcomes import EXIT_CODES
from personae.cli.reports import report
from personae.cli.settings import KEYS
from personae.cli.trainings import train, watch
from personae.cli.verify_store import verify_store

_JSON = (
    "With --json a command writes JSON to stdout and nothing else: one object, or an object a line where it goes on "
    "for long (up, train, watch, generate, verify-store); its --help has the shape. An error is then one object on "
    "stderr: {error: {type, message, reason, violations, retry_after_s, exit_code}}."
)
_EPILOG = "\n\n".join(
    [_JSON, "\n".join(["Exit codes:", *(f"{code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())])]
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.callback(epilog=_EPILOG)(access)


def _add(command: Callable[..., None], name: str | None = None, epilog: str | None = None) -> None:
    # Typer would keep the lines of a docstring as they are broken, whatever the width of the terminal.
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    help_text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    app.command(name, help=help_text, epilog=epilog)(command)


_add(up)
_add(doctor)
_add(train, epilog=KEYS)
_add(watch)
_add(report)
_add(generate)
_add(compare)
_add(models)
_add(adapters)
_add(export)
_add(import_adapter, "import")
_add(datasets)
_add(delete)
_add(demo)
_add(verify_store)
