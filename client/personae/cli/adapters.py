"""The commands for what trainings made: `adapters` and `export`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import personae
from personae.cli.access import connected
from personae.cli.options import TRAINER, Project, Trainer
from personae.cli.terminal import local_time, out, short
from personae.vocabulary import AdapterFormat


def adapters(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Show every version of this one.")] = "",
    download: Annotated[Path | None, typer.Option(help="Save the adapter NAME as this file or in this folder.")] = None,
    trainer: Trainer = TRAINER,
    project: Project = "default",
) -> None:
    """List adapters, or download one."""
    with connected(context, trainer, project=project) as client:
        if download is not None:
            if not name:
                raise personae.InvalidRequest([personae.Violation("--download", "say which: personae adapters NAME …")])
            out.print(str(client.download_adapter(name, download)))
            return
        table = Table("name", "base model", "prompt begins", "rank", "made", "evaluation", box=None)
        for found in client.adapters(name):
            made = (
                str(found.rank),
                local_time(found.create_time),
                found.evaluation.summary() if found.evaluation else "",
            )
            table.add_row(short(found.name), found.base_model, found.prompt("…"), *made)
        out.print(table)


def export(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Id or name of an adapter.")],
    adapter_format: Annotated[
        AdapterFormat, typer.Option("--format", help="Whose key names: kohya is for ComfyUI too.")
    ] = "kohya",
    output: Annotated[Path, typer.Option(help="The file, or a folder for it; its model card goes beside it.")] = Path(),
    trainer: Trainer = TRAINER,
    project: Project = "default",
) -> None:
    """Save an adapter as other programs read it, with its model card, and print its path."""
    with connected(context, trainer, project=project) as client:
        out.print(str(client.export_adapter(name, adapter_format, output)))
