"""The commands that train: `train` and `watch`."""

from pathlib import Path
from typing import Annotated, cast

import typer

import personae
from personae.cli.datasets import print_findings
from personae.cli.options import TRAINER, Project, Trainer
from personae.cli.progress import TrainingBars
from personae.cli.terminal import err, out
from personae.vocabulary import Precision, Targets


def train(
    folder: Annotated[Path, typer.Argument(help="A folder of pictures; x.txt beside x.png is its caption.")],
    name: Annotated[str, typer.Option(help="Id of the adapter to make.")],
    new_version: Annotated[
        bool, typer.Option("--new-version", help="Where the adapter exists, make its next version.")
    ] = False,
    base_model: Annotated[str, typer.Option(help="Base model; default: the server's.")] = "",
    trigger_word: Annotated[str, typer.Option(help="Rare word that stands for the subject; default: sks.")] = "",
    class_noun: Annotated[str, typer.Option(help="What the subject is, in one or two words.")] = "",
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    rank: Annotated[int | None, typer.Option(help="LoRA rank.")] = None,
    targets: Annotated[Targets | None, typer.Option(help="Layers to adapt.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Side of the training pictures in pixels.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Number format of the passes.")] = None,
    prior_weight: Annotated[float | None, typer.Option(help="Weight of prior preservation; 0 turns it off.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as it is queued.")] = False,
    cancel_on_interrupt: Annotated[
        bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C cancels the training.")
    ] = False,
    trainer: Trainer = TRAINER,
    project: Project = "default",
) -> None:
    """Upload pictures and train an adapter on them.

    What is not given is chosen for the base model. Ctrl-C leaves the training running; `personae watch` takes it up.
    """
    config = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "rank": rank,
        "targets": targets,
        "resolution": resolution,
        "precision": precision,
        "prior_weight": prior_weight,
        "seed": seed,
    }
    with personae.Client(trainer, project=project) as client:
        dataset = client.create_dataset(pictures=folder)
        print_findings(dataset)
        training = client.train(
            dataset,
            name=name,
            new_version=new_version,
            base_model=base_model,
            trigger_word=trigger_word,
            class_noun=class_noun,
            **cast(personae.TrainingConfig, config),
        )
        if detach:
            out.print(training.name)
        else:
            _follow(training, cancel_on_interrupt)


def watch(
    training: Annotated[str, typer.Argument(help="Id or name of a training.")],
    cancel_on_interrupt: Annotated[
        bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C cancels the training.")
    ] = False,
    trainer: Trainer = TRAINER,
    project: Project = "default",
) -> None:
    """Follow a training from its first event to its end."""
    with personae.Client(trainer, project=project) as client:
        _follow(client.get_training(training), cancel_on_interrupt)


def _follow(training: personae.Training, cancel_on_interrupt: bool) -> None:
    try:
        with TrainingBars(err) as bars:
            adapter = training.wait(on_event=bars.show)
    except KeyboardInterrupt:
        if cancel_on_interrupt:
            training.cancel()
            err.print(f"cancelled {training.name}")
        else:
            err.print(f"The training goes on. Take it up again: personae watch {training.name}")
        raise
    out.print(adapter.name)
    if adapter.evaluation:
        err.print(adapter.evaluation.summary())
    err.print(f"Try: personae generate '{adapter.prompt('…')}' --adapter {adapter.name}")
