"""The options that several commands share, and where the services are unless they say otherwise."""

from typing import Annotated

import typer

Trainer = Annotated[
    str, typer.Option(envvar="PERSONAE_TRAINER_ADDRESS", metavar="HOST:PORT", help="Where the trainer service is.")
]
Inference = Annotated[
    str, typer.Option(envvar="PERSONAE_INFERENCE_ADDRESS", metavar="HOST:PORT", help="Where the inference service is.")
]
Project = Annotated[str, typer.Option(metavar="ID", help="The project that ids belong to.")]

TRAINER, INFERENCE = "127.0.0.1:50051", "127.0.0.1:50052"
