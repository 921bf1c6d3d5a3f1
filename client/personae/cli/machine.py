"""The commands that run everything on this machine: `up` and `demo`."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live
from rich.markup import escape

from personae.cli import defaults, json_output, local_stack
from personae.cli import demo as demo_story
from personae.cli.options import (
    PORT_OPTIONS,
    Inference,
    InferenceHealth,
    InferenceMetrics,
    StorePort,
    Trainer,
    TrainerHealth,
    TrainerMetrics,
)
from personae.cli.status_panel import StatusPanel
from personae.cli.terminal import err, out


def up(
    trainer: Trainer = defaults.TRAINER,
    inference: Inference = defaults.INFERENCE,
    trainer_health: TrainerHealth = defaults.TRAINER_HEALTH,
    inference_health: InferenceHealth = defaults.INFERENCE_HEALTH,
    trainer_metrics: TrainerMetrics = defaults.TRAINER_METRICS,
    inference_metrics: InferenceMetrics = defaults.INFERENCE_METRICS,
    store_port: StorePort = defaults.STORE_PORT,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print JSON alone: one object when everything serves, {event: serving, trainer, inference, store, "
            "logs: {NAME: FILE}}; then nothing until Ctrl-C.",
        ),
    ] = False,
) -> None:
    """Start object store, trainer and inference service on this machine, until Ctrl-C, and show how they are.

    Needs a source checkout; everything is kept in its folder .local/, the logs in .local/logs/. With
    PERSONAE_S3_ENDPOINT set (and PERSONAE_S3_ACCESS_KEY, PERSONAE_S3_SECRET_KEY, PERSONAE_S3_BUCKET), that store is
    used instead of a local one; with PERSONAE_BASE_MODELS, those base models (name or name=/folder, by commas).
    """
    folder = local_stack.checkout() / ".local"
    addresses = local_stack.Addresses(
        trainer, inference, trainer_health, inference_health, trainer_metrics, inference_metrics, store_port
    )
    base_models = os.environ.get("PERSONAE_BASE_MODELS", "")
    err.print(f"starting, which takes some seconds; the logs are in {folder / 'logs'}")
    with local_stack.running(folder / "store", folder / "logs", addresses, PORT_OPTIONS, base_models) as stack:
        if as_json:
            where = {"trainer": stack.trainer, "inference": stack.inference, "store": stack.store}
            json_output.write({"event": "serving", **where, "logs": stack.logs})
            stack.watch()
        elif out.is_terminal:
            panel = StatusPanel(stack)
            with Live(panel.drawn(), console=out, refresh_per_second=2) as live:
                stack.watch(lambda: live.update(panel.drawn()))
        else:
            for name, log in stack.logs.items():
                err.print(f"log of {name}: {escape(str(log))}")
            out.print(f"trainer    {stack.trainer}\ninference  {stack.inference}\nstore      {stack.store}")
            err.print("Ctrl-C stops everything.")
            stack.watch()


def demo(
    output: Annotated[Path | None, typer.Option(help="The contact sheet; default: .local/contact-sheet.png.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone: {contact_sheet: PATH}.")] = False,
) -> None:
    """Train on sixteen bundled pictures and write a contact sheet, in about two minutes; print its path.

    The training's report lies beside the sheet.

    Starts everything it needs on free ports and stops it again. Needs a source checkout.
    """
    sheet = demo_story.run(output, err)
    if as_json:
        json_output.write({"contact_sheet": sheet})
    else:
        out.print(escape(str(sheet)))
