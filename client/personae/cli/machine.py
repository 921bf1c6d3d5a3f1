"""The commands that run everything on this machine: `up` and `demo`."""

from pathlib import Path
from typing import Annotated

import typer

from personae.cli import demo as demo_story
from personae.cli import local_stack
from personae.cli.options import INFERENCE, TRAINER, Inference, Trainer
from personae.cli.terminal import err, out

_PORT_OPTIONS = {
    "trainer": "--trainer or PERSONAE_TRAINER_ADDRESS",
    "inference": "--inference or PERSONAE_INFERENCE_ADDRESS",
    "trainer_health": "--trainer-health or PERSONAE_TRAINER_HEALTH_ADDRESS",
    "inference_health": "--inference-health or PERSONAE_INFERENCE_HEALTH_ADDRESS",
    "trainer_metrics": "--trainer-metrics or PERSONAE_TRAINER_METRICS_ADDRESS",
    "inference_metrics": "--inference-metrics or PERSONAE_INFERENCE_METRICS_ADDRESS",
    "store_port": "--store-port or PERSONAE_STORE_PORT",
}


def up(
    trainer: Trainer = TRAINER,
    inference: Inference = INFERENCE,
    trainer_health: Annotated[
        str,
        typer.Option(envvar="PERSONAE_TRAINER_HEALTH_ADDRESS", metavar="HOST:PORT", help="The trainer's health port."),
    ] = "127.0.0.1:50061",
    inference_health: Annotated[
        str,
        typer.Option(
            envvar="PERSONAE_INFERENCE_HEALTH_ADDRESS", metavar="HOST:PORT", help="The inference service's health port."
        ),
    ] = "127.0.0.1:50062",
    trainer_metrics: Annotated[
        str,
        typer.Option(
            envvar="PERSONAE_TRAINER_METRICS_ADDRESS", metavar="HOST:PORT", help="The trainer's metrics port; '': none."
        ),
    ] = "127.0.0.1:50071",
    inference_metrics: Annotated[
        str,
        typer.Option(
            envvar="PERSONAE_INFERENCE_METRICS_ADDRESS",
            metavar="HOST:PORT",
            help="The inference service's metrics port; '': none.",
        ),
    ] = "127.0.0.1:50072",
    store_port: Annotated[
        int, typer.Option(envvar="PERSONAE_STORE_PORT", help="Port of the local object store.")
    ] = 9000,
) -> None:
    """Start object store, trainer and inference service on this machine, until Ctrl-C.

    Needs a source checkout; everything is kept in its folder .local/. With PERSONAE_S3_ENDPOINT set (and
    PERSONAE_S3_ACCESS_KEY, PERSONAE_S3_SECRET_KEY, PERSONAE_S3_BUCKET), that store is used instead of a local one.
    """
    folder = local_stack.checkout() / ".local"
    addresses = local_stack.Addresses(
        trainer, inference, trainer_health, inference_health, trainer_metrics, inference_metrics, store_port
    )
    err.print(f"starting; the logs are in {folder / 'logs'}")
    with local_stack.running(folder / "store", folder / "logs", addresses, _PORT_OPTIONS) as stack:
        out.print(f"trainer    {stack.trainer}\ninference  {stack.inference}\nstore      {stack.store}")
        err.print("Ctrl-C stops everything.")
        stack.watch()


def demo(
    output: Annotated[Path | None, typer.Option(help="The contact sheet; default: .local/contact-sheet.png.")] = None,
) -> None:
    """Train on sixteen bundled pictures and write a contact sheet, with the training's report beside it: two minutes.

    Starts everything it needs on free ports and stops it again. Needs a source checkout.
    """
    print(demo_story.run(output, err))
