"""The command `models`: what the inference server draws with, and what can be asked of each."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

import personae
from personae.cli import json_output
from personae.cli.access import connected
from personae.cli.defaults import INFERENCE
from personae.cli.options import Inference
from personae.cli.terminal import out


def models(
    context: typer.Context,
    inference: Inference = INFERENCE,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print JSON alone: {base_models: […]}, each with the fields of personae.ServedBaseModel."
        ),
    ] = False,
) -> None:
    """List the base models that are served, the default first, with what can be asked of each."""
    with connected(context, inference=inference) as client:
        found_here = client.served_base_models()
    if as_json:
        json_output.write({"base_models": found_here})
        return
    table = Table("name", "pixels", "steps", "guidance", "negative prompt", "schedulers", "prompt tokens", box=None)
    for found in found_here:
        sides = f"{found.min_size} to {found.max_size} by {found.size_step}, {found.default_size}"
        negative = "yes" if found.takes_negative_prompt else "no"
        asked = str(found.default_steps), _guidance(found), negative, _schedulers(found), str(found.max_prompt_tokens)
        table.add_row(escape(found.base_model), sides, *asked)
    out.print(table)


def _guidance(found: personae.ServedBaseModel) -> str:
    if found.max_guidance_scale <= 1:
        return "none"
    return f"1 to {found.max_guidance_scale:g}, {found.default_guidance_scale:g}"


def _schedulers(found: personae.ServedBaseModel) -> str:
    """The default first."""
    others = [scheduler for scheduler in found.schedulers if scheduler != found.default_scheduler]
    return ", ".join((found.default_scheduler, *others))
