"""The command line: its commands, in the order in which `--help` lists them.

Each is a function in a file of its group: read the options, call the client, print what came of it.
"""

import typer

from personae.cli.access import access
from personae.cli.adapters import adapters, export
from personae.cli.datasets import datasets
from personae.cli.deleting import delete
from personae.cli.generating import generate
from personae.cli.importing import import_adapter
from personae.cli.machine import demo, up
from personae.cli.reports import report
from personae.cli.settings import KEYS
from personae.cli.trainings import train, watch
from personae.cli.verify_store import verify_store

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.callback()(access)
app.command()(up)
app.command(epilog=KEYS)(train)
for command in (watch, report, generate, adapters, export):
    app.command()(command)
app.command("import")(import_adapter)
app.command()(datasets)
app.command()(delete)
app.command()(demo)
app.command()(verify_store)
