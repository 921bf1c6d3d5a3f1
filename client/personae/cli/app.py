"""The commands and their options. Each is: read the options, call the client, print what came of it.

Results go to stdout, everything else to stderr.
"""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import personae
from personae.cli import demo as demo_story
from personae.cli import local_stack
from personae.cli.progress import GenerationBar, TrainingBars
from personae.requests import AdapterChoice
from personae.vocabulary import ImageFormat, Precision, Scheduler, Targets

app = typer.Typer(
    help="Train a LoRA adapter from sixteen pictures and generate with it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
# A pipe has no width of its own; a wide one keeps names in one piece.
out = Console(width=None if sys.stdout.isatty() else 200, highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Trainer = Annotated[
    str, typer.Option(envvar="PERSONAE_TRAINER_ADDRESS", metavar="HOST:PORT", help="Where the trainer service is.")
]
Inference = Annotated[
    str, typer.Option(envvar="PERSONAE_INFERENCE_ADDRESS", metavar="HOST:PORT", help="Where the inference service is.")
]
Project = Annotated[str, typer.Option(metavar="ID", help="The project that ids belong to.")]

_TRAINER, _INFERENCE = "127.0.0.1:50051", "127.0.0.1:50052"
_PORT_OPTIONS = {
    "trainer": "--trainer or PERSONAE_TRAINER_ADDRESS",
    "inference": "--inference or PERSONAE_INFERENCE_ADDRESS",
    "trainer_health": "--trainer-health or PERSONAE_TRAINER_HEALTH_ADDRESS",
    "inference_health": "--inference-health or PERSONAE_INFERENCE_HEALTH_ADDRESS",
    "store_port": "--store-port or PERSONAE_STORE_PORT",
}


@app.command()
def up(
    trainer: Trainer = _TRAINER,
    inference: Inference = _INFERENCE,
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
    store_port: Annotated[
        int, typer.Option(envvar="PERSONAE_STORE_PORT", help="Port of the local object store.")
    ] = 9000,
) -> None:
    """Start object store, trainer and inference service on this machine, until Ctrl-C.

    Needs a source checkout; everything is kept in its folder .local/. With PERSONAE_S3_ENDPOINT set (and
    PERSONAE_S3_ACCESS_KEY, PERSONAE_S3_SECRET_KEY, PERSONAE_S3_BUCKET), that store is used instead of a local one.
    """
    folder = local_stack.checkout() / ".local"
    addresses = local_stack.Addresses(trainer, inference, trainer_health, inference_health, store_port)
    err.print(f"starting; the logs are in {folder / 'logs'}")
    with local_stack.running(folder / "store", folder / "logs", addresses, _PORT_OPTIONS) as stack:
        out.print(f"trainer    {stack.trainer}\ninference  {stack.inference}\nstore      {stack.store}")
        err.print("Ctrl-C stops everything.")
        stack.watch()


@app.command()
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
    trainer: Trainer = _TRAINER,
    project: Project = "default",
) -> None:
    """Upload pictures and train an adapter on them.

    What is not given is chosen for the base model. Ctrl-C leaves the training running; `personae watch` takes it up.
    """
    with personae.Client(trainer, project=project) as client:
        dataset = client.create_dataset(pictures=folder)
        _print_findings(dataset)
        training = client.train(
            dataset,
            name=name,
            new_version=new_version,
            base_model=base_model,
            trigger_word=trigger_word,
            class_noun=class_noun,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            rank=rank,
            targets=targets,
            resolution=resolution,
            precision=precision,
            prior_weight=prior_weight,
            seed=seed,
        )
        if detach:
            out.print(training.name)
        else:
            _follow(training, cancel_on_interrupt)


@app.command()
def watch(
    training: Annotated[str, typer.Argument(help="Id or name of a training.")],
    cancel_on_interrupt: Annotated[
        bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C cancels the training.")
    ] = False,
    trainer: Trainer = _TRAINER,
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


def _print_findings(dataset: personae.Dataset) -> None:
    err.print(f"{dataset.accepted_count} of {len(dataset.images)} pictures accepted")
    for image in dataset.rejected:
        err.print(f"  {escape(image.filename)}: {image.rejection}: {escape(image.detail)}")
    for sentence in dataset.advice:
        err.print(f"  {escape(sentence)}")


@app.command()
def generate(
    prompts: Annotated[list[str], typer.Argument(help="What to draw; each prompt in quotes.")],
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="NAME[=WEIGHT]", help="Adapter to apply; may be repeated.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="One image of each prompt; may be repeated.")] = None,
    images_per_prompt: Annotated[int | None, typer.Option(help="Images of each prompt without --seed.")] = None,
    base_model: Annotated[str, typer.Option(help="Base model; default: that of the adapter.")] = "",
    negative_prompt: Annotated[str, typer.Option(help="What to avoid.")] = "",
    guidance_scale: Annotated[float | None, typer.Option(help="How closely to follow the prompt.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    scheduler: Annotated[Scheduler | None, typer.Option(help="How the noise is removed.")] = None,
    width: Annotated[int | None, typer.Option(help="In pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="In pixels.")] = None,
    image_format: Annotated[ImageFormat, typer.Option("--format", help="File format.")] = "png",
    output: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("."),
    inference: Inference = _INFERENCE,
    project: Project = "default",
) -> None:
    """Generate images and print the path of each as it is finished."""
    output.mkdir(parents=True, exist_ok=True)
    with personae.Client(inference=inference, project=project) as client, GenerationBar(err, "generating") as bar:
        for image in client.generate(
            prompts,
            adapters=[_weighted(text) for text in adapter or []],
            seeds=seed,
            images_per_prompt=images_per_prompt,
            base_model=base_model,
            negative_prompt=negative_prompt,
            guidance_scale=guidance_scale,
            steps=steps,
            scheduler=scheduler,
            width=width,
            height=height,
            image_format=image_format,
            on_progress=bar.show,
        ):
            if image.filtered:
                err.print(f"image {image.index} (seed {image.seed}) was filtered")
            else:
                path = image.save(output / f"{image.index:03d}-{image.seed}.{image_format}")
                out.print(str(path))


def _weighted(text: str) -> AdapterChoice:
    name, separator, weight = text.partition("=")
    try:
        return (name, float(weight)) if separator else name
    except ValueError:
        raise personae.InvalidRequest(
            [personae.Violation("--adapter", f"found {text!r}; allowed is NAME or NAME=WEIGHT")]
        ) from None


@app.command()
def adapters(
    name: Annotated[str, typer.Argument(help="Show every version of this one.")] = "",
    download: Annotated[Path | None, typer.Option(help="Save the adapter NAME as this file or in this folder.")] = None,
    trainer: Trainer = _TRAINER,
    project: Project = "default",
) -> None:
    """List adapters, or download one."""
    with personae.Client(trainer, project=project) as client:
        if download is not None:
            if not name:
                raise personae.InvalidRequest([personae.Violation("--download", "say which: personae adapters NAME …")])
            out.print(str(client.download_adapter(name, download)))
            return
        table = Table("name", "base model", "prompt begins", "rank", "made", "evaluation", box=None)
        for found in client.adapters(name):
            made = str(found.rank), _local(found.create_time), found.evaluation.summary() if found.evaluation else ""
            table.add_row(_id(found.name), found.base_model, found.prompt("…"), *made)
        out.print(table)


@app.command()
def datasets(
    name: Annotated[str, typer.Argument(help="Show what was found in this one.")] = "",
    trainer: Trainer = _TRAINER,
    project: Project = "default",
) -> None:
    """List datasets, or show what the picture doctor found in one."""
    with personae.Client(trainer, project=project) as client:
        if name:
            _print_dataset(client.get_dataset(name))
            return
        table = Table("name", "accepted", "rejected", "ready", "changed", box=None)
        for found in client.datasets():
            counts = str(found.accepted_count), str(found.rejected_count), "yes" if found.ready else "no"
            table.add_row(_id(found.name), *counts, _local(found.update_time))
        out.print(table)


def _print_dataset(dataset: personae.Dataset) -> None:
    table = Table("picture", "pixels", "caption", "found", box=None)
    for image in dataset.images:
        found = ", ".join(image.conversions) if image.accepted else f"{image.rejection}: {image.detail}"
        table.add_row(escape(image.filename), f"{image.width}x{image.height}", escape(image.caption), escape(found))
    out.print(table)
    _print_findings(dataset)


def _id(name: str) -> str:
    """What a resource is called within its project and collection; every command takes it for the name."""
    return name.split("/", 3)[-1]


def _local(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M")


@app.command()
def demo(
    output: Annotated[Path | None, typer.Option(help="The contact sheet; default: .local/contact-sheet.png.")] = None,
) -> None:
    """Train on sixteen bundled pictures and write a contact sheet, in about two minutes.

    Starts everything it needs on free ports and stops it again. Needs a source checkout.
    """
    print(demo_story.run(output, err))
