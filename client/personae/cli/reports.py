"""The command `report`, and what `train` does with a training's report at its end."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

import personae
from personae.cli import completion, json_output
from personae.cli.access import connected
from personae.cli.defaults import TRAINER
from personae.cli.options import Project, Trainer
from personae.cli.terminal import err, out

ReportPath = Annotated[
    Path, typer.Option("--report", metavar="PATH", help="Where its report goes: a file, or a folder for it.")
]
Open = Annotated[bool, typer.Option("--open", help="Open the report in a browser.")]


def report(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Id or name of an adapter.", autocompletion=completion.adapters)],
    path: Annotated[Path, typer.Argument(help="The file, or a folder for it.")] = Path(),
    open_report: Open = False,
    trainer: Trainer = TRAINER,
    project: Project = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone: {path}.")] = False,
) -> None:
    """Save how an adapter's training went, as one HTML file, and print its path.

    It shows the training pictures, the curves, the samples, the measurements and the settings.
    """
    with connected(context, trainer, project=project) as client:
        saved = client.download_report(name, path)
    if as_json:
        json_output.write({"path": saved})
    else:
        out.print(escape(str(saved)))
    if open_report:
        _open(saved)


def save_report(client: personae.Client, adapter: personae.Adapter, path: Path, open_report: bool) -> Path | None:
    """Save the report of a training that has just ended, and say where it is, or why it is not there."""
    try:
        saved = client.download_report(adapter, path)
    except (personae.NotFound, OSError) as error:
        # The adapter exists: neither a report that could not be made nor a folder that is not there is an error now.
        err.print(f"no report: {escape(str(error))}")
        return None
    err.print(f"how it went: {escape(str(saved))}")
    if open_report:
        _open(saved)
    return saved


def _open(path: Path) -> None:
    if not webbrowser.open(path.resolve().as_uri()):
        err.print("There is no browser to open it with.")
