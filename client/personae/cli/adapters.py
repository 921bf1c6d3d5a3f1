"""The commands for what trainings made: `adapters` and `export`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

import personae
from personae.cli import completion, json_output
from personae.cli.access import connected
from personae.cli.defaults import TRAINER
from personae.cli.options import Project, Trainer
from personae.cli.terminal import local_time, out, short
from personae.vocabulary import AdapterFormat


def adapters(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="Show every version of this one.", autocompletion=completion.adapters)
    ] = "",
    download: Annotated[Path | None, typer.Option(help="Save the adapter NAME as this file or in this folder.")] = None,
    trainer: Trainer = TRAINER,
    project: Project = "default",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print JSON alone: {adapters: […]}, each with the fields of personae.Adapter; with --download {path}.",
        ),
    ] = False,
) -> None:
    """List adapters with what was measured of each, or download one."""
    with connected(context, trainer, project=project) as client:
        if download is not None:
            if not name:
                raise personae.InvalidRequest([personae.Violation("--download", "say which: personae adapters NAME …")])
            saved = client.download_adapter(name, download)
            if as_json:
                json_output.write({"path": saved})
            else:
                out.print(escape(str(saved)))
            return
        found_here = list(client.adapters(name))
    if as_json:
        json_output.write({"adapters": found_here})
        return
    table = Table("name", "base model", "prompt begins", "rank", "made", "evaluation", box=None)
    for found in found_here:
        made = str(found.rank), local_time(found.create_time), found.evaluation.summary() if found.evaluation else ""
        table.add_row(short(found.name), escape(found.base_model), escape(found.prompt("…")), *made)
    out.print(table)


def export(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Id or name of an adapter.", autocompletion=completion.adapters)],
    adapter_format: Annotated[
        AdapterFormat, typer.Option("--format", help="Whose key names: kohya is for ComfyUI too.")
    ] = "kohya",
    output: Annotated[Path, typer.Option(help="The file, or a folder for it; its model card goes beside it.")] = Path(),
    trainer: Trainer = TRAINER,
    project: Project = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone: {path, model_card}.")] = False,
) -> None:
    """Save an adapter as other programs read it, with its model card, and print its path."""
    with connected(context, trainer, project=project) as client:
        saved = client.export_adapter(name, adapter_format, output)
    if as_json:
        json_output.write({"path": saved, "model_card": saved.with_suffix(".md")})
    else:
        out.print(escape(str(saved)))
