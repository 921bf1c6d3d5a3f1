"""The options that several commands share."""

from typing import Annotated

import typer

from personae.cli import completion

Trainer = Annotated[
    str, typer.Option(envvar="PERSONAE_TRAINER_ADDRESS", metavar="HOST:PORT", help="Where the trainer service is.")
]
Inference = Annotated[
    str, typer.Option(envvar="PERSONAE_INFERENCE_ADDRESS", metavar="HOST:PORT", help="Where the inference service is.")
]
TrainerHealth = Annotated[
    str,
    typer.Option(envvar="PERSONAE_TRAINER_HEALTH_ADDRESS", metavar="HOST:PORT", help="The trainer's health port."),
]
InferenceHealth = Annotated[
    str,
    typer.Option(
        envvar="PERSONAE_INFERENCE_HEALTH_ADDRESS", metavar="HOST:PORT", help="The inference service's health port."
    ),
]
TrainerMetrics = Annotated[
    str,
    typer.Option(
        envvar="PERSONAE_TRAINER_METRICS_ADDRESS", metavar="HOST:PORT", help="The trainer's metrics port; '': none."
    ),
]
InferenceMetrics = Annotated[
    str,
    typer.Option(
        envvar="PERSONAE_INFERENCE_METRICS_ADDRESS",
        metavar="HOST:PORT",
        help="The inference service's metrics port; '': none.",
    ),
]
StorePort = Annotated[int, typer.Option(envvar="PERSONAE_STORE_PORT", help="Port of the local object store.")]
Project = Annotated[str, typer.Option(metavar="ID", help="The project that ids belong to.")]
NoPictures = Annotated[bool, typer.Option("--no-pictures", help="Draw no pictures in the terminal.")]
Applied = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[=WEIGHT]",
        help="Adapter to apply, with a weight from -2 to 2, else 1; may be repeated.",
        autocompletion=completion.adapters,
    ),
]

PORT_OPTIONS = {
    "trainer": "--trainer or PERSONAE_TRAINER_ADDRESS",
    "inference": "--inference or PERSONAE_INFERENCE_ADDRESS",
    "trainer_health": "--trainer-health or PERSONAE_TRAINER_HEALTH_ADDRESS",
    "inference_health": "--inference-health or PERSONAE_INFERENCE_HEALTH_ADDRESS",
    "trainer_metrics": "--trainer-metrics or PERSONAE_TRAINER_METRICS_ADDRESS",
    "inference_metrics": "--inference-metrics or PERSONAE_INFERENCE_METRICS_ADDRESS",
    "store_port": "--store-port or PERSONAE_STORE_PORT",
}
"""How to choose another, for each of `local_stack.Addresses`."""
