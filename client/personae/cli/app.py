"""The command line: its commands, in the order in which `--help` lists them.

Each is a function in a file of its group: read the options, call the client, print what came of it.
"""

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
from personae.cli.outcomes import EXIT_CODES
from personae.cli.settings import KEYS
from personae.cli.trainings import train, watch
from personae.cli.verify_store import verify_store

# A blank line is where the help begins a new one.
_EPILOG = "\n\n".join(
    [
        "With --json a command writes JSON to stdout and nothing else: one object, or an object a line where it goes "
        "on for long (up, train, watch, generate, verify-store); its --help has the shape. An error is then one object on "
        "stderr: {error: {type, message, reason, violations, retry_after_s, exit_code}}.",
        "Exit codes:",
        *(f"{code:>4}  {meaning}" for code, meaning in EXIT_CODES.items()),
    ]
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.callback(epilog=_EPILOG)(access)
app.command()(up)
app.command()(doctor)
app.command(epilog=KEYS)(train)
for command in (watch, generate, compare, adapters, export):
    app.command()(command)
app.command("import")(import_adapter)
app.command()(datasets)
app.command()(delete)
app.command()(demo)
app.command()(verify_store)
