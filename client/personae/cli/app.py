"""The command line: its commands, in the order in which `--help` lists them.

Each is a function in a file of its group: read the options, call the client, print what came of it.
"""

import typer

from personae.cli.adapters import adapters, export
from personae.cli.datasets import datasets
from personae.cli.deleting import delete
from personae.cli.generating import generate
from personae.cli.machine import demo, up
from personae.cli.settings import KEYS
from personae.cli.trainings import train, watch

app = typer.Typer(
    help="Train a LoRA adapter from sixteen pictures and generate with it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(up)
app.command(epilog=KEYS)(train)
for command in (watch, generate, adapters, export, datasets, delete, demo):
    app.command()(command)
