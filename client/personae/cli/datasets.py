"""The command `datasets`, and what any command says about the pictures of one."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

import personae
from personae.cli import completion, json_output
from personae.cli.access import connected
from personae.cli.defaults import TRAINER
from personae.cli.options import Project, Trainer
from personae.cli.terminal import err, local_time, out, short


def datasets(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="Show what was found in this one.", autocompletion=completion.datasets)
    ] = "",
    trainer: Trainer = TRAINER,
    project: Project = "default",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print JSON alone: {datasets: […]}, or with NAME {dataset}, with the fields of personae.Dataset.",
        ),
    ] = False,
) -> None:
    """List datasets, or show what the picture doctor found in one."""
    with connected(context, trainer, project=project) as client:
        if name:
            dataset = client.get_dataset(name)
            if as_json:
                json_output.write({"dataset": dataset})
            else:
                _print_dataset(dataset)
            return
        found_here = list(client.datasets())
    if as_json:
        json_output.write({"datasets": found_here})
        return
    table = Table("name", "accepted", "rejected", "ready", "changed", box=None)
    for found in found_here:
        counts = str(found.accepted_count), str(found.rejected_count), "yes" if found.ready else "no"
        table.add_row(short(found.name), *counts, local_time(found.update_time))
    out.print(table)


def _print_dataset(dataset: personae.Dataset) -> None:
    table = Table("picture", "pixels", "caption", "found", box=None)
    for image in dataset.images:
        kept = ", ".join((*image.conversions, *image.warnings, *["mask"] * image.has_mask))
        found = kept if image.accepted else f"{image.rejection}: {image.detail}"
        table.add_row(escape(image.filename), f"{image.width}x{image.height}", escape(image.caption), escape(found))
    out.print(table)
    print_findings(dataset)


def print_findings(dataset: personae.Dataset) -> None:
    """What a person should know before training on it, on stderr."""
    err.print(f"{dataset.accepted_count} of {len(dataset.images)} pictures accepted")
    for image in dataset.rejected:
        err.print(f"  {escape(image.filename)}: {image.rejection}: {escape(image.detail)}")
    for image in dataset.images:
        if image.warnings:
            err.print(f"  {escape(image.filename)}: {', '.join(image.warnings)}")
    for sentence in dataset.advice:
        err.print(f"  {escape(sentence)}")
