"""The commands that train: `train` and `watch`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

import personae
from personae import calls
from personae.cli.access import connected
from personae.cli.datasets import print_findings
from personae.cli.options import TRAINER, Project, Trainer
from personae.cli.progress import TrainingBars
from personae.cli.reports import Open, ReportPath, save_report
from personae.cli.settings import chosen
from personae.cli.terminal import err, out
from personae.vocabulary import AdapterType, Preset

CancelOnInterrupt = Annotated[bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C cancels the training.")]
Samples = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Save sample pictures there as they are drawn.")]


def train(
    context: typer.Context,
    pictures: Annotated[
        str, typer.Argument(help="A folder; x.txt beside x.png is its caption. Or a dataset: projects/…/datasets/….")
    ],
    name: Annotated[str, typer.Option(help="Id of the adapter to make.")],
    new_version: Annotated[
        bool, typer.Option("--new-version", help="Where the adapter exists, make its next version.")
    ] = False,
    base_model: Annotated[str, typer.Option(help="Base model; default: the server's.")] = "",
    trigger_word: Annotated[str, typer.Option(help="Rare word that stands for the subject; default: sks.")] = "",
    class_noun: Annotated[str, typer.Option(help="What the subject is, in one or two words.")] = "",
    preset: Annotated[Preset | None, typer.Option(help="How much time it may take; default: balanced.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    rank: Annotated[int | None, typer.Option(help="LoRA rank.")] = None,
    adapter_type: Annotated[AdapterType | None, typer.Option(help="What is trained; default: lora.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Side of the training pictures in pixels.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any hyper-parameter, by a key from below; may be repeated."),
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the adapter, kept with it.")] = "",
    consent_given_by: Annotated[str, typer.Option(help="Who gave the right to learn from the pictures.")] = "",
    consent_purpose: Annotated[str, typer.Option(help="For what they gave it, in their words.")] = "",
    consent_evidence: Annotated[str, typer.Option(help="Where that is recorded.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Upload and check, print what would be done and what it would take.")
    ] = False,
    samples: Samples = None,
    report_path: ReportPath = Path(),
    open_report: Open = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as it is queued.")] = False,
    cancel_on_interrupt: CancelOnInterrupt = False,
    trainer: Trainer = TRAINER,
    project: Project = "default",
) -> None:
    """Upload pictures and train an adapter on them.

    What is not given is chosen for the base model. Ctrl-C leaves the training running; `personae watch` takes it up.
    """
    options = {
        "preset": preset,
        "steps": steps,
        "rank": rank,
        "adapter_type": adapter_type,
        "resolution": resolution,
        "seed": seed,
    }
    config = chosen(options, settings or [])
    consent = None
    if consent_given_by or consent_purpose or consent_evidence:
        consent = personae.Consent(consent_given_by, consent_purpose, consent_evidence)
    with connected(context, trainer, project=project) as client:
        stored, folder = calls.dataset_or_pictures(pictures, consent)
        dataset = client.get_dataset(stored) if stored else client.create_dataset(pictures=folder, consent=consent)
        print_findings(dataset)
        verb = client.plan_training if dry_run else client.train
        made = verb(
            dataset,
            name=name,
            new_version=new_version,
            base_model=base_model,
            trigger_word=trigger_word,
            class_noun=class_noun,
            licence=licence,
            **config,
        )
        if isinstance(made, personae.TrainingPlan):
            _print_plan(made)
        elif detach:
            out.print(made.name)
        else:
            save_report(client, _follow(made, cancel_on_interrupt, samples), report_path, open_report)


def watch(
    context: typer.Context,
    training: Annotated[str, typer.Argument(help="Id or name of a training.")],
    samples: Samples = None,
    cancel_on_interrupt: CancelOnInterrupt = False,
    trainer: Trainer = TRAINER,
    project: Project = "default",
) -> None:
    """Follow a training from its first event to its end."""
    with connected(context, trainer, project=project) as client:
        _follow(client.get_training(training), cancel_on_interrupt, samples)


def _follow(training: personae.Training, cancel_on_interrupt: bool, samples: Path | None) -> personae.Adapter:
    drawn = _Samples(training.name, samples)
    try:
        with TrainingBars(err) as bars:

            def show(event: personae.TrainingEvent) -> None:
                bars.show(event)
                drawn.show(event)

            adapter = training.wait(on_event=show)
    except KeyboardInterrupt:
        if cancel_on_interrupt:
            training.cancel()
            err.print(f"cancelled {training.name}")
        else:
            err.print(f"The training goes on. Take it up again: personae watch {training.name}")
        raise
    out.print(adapter.name)
    if adapter.validation_loss is not None:
        err.print(f"step {adapter.chosen_step}, validation loss {adapter.validation_loss:.4f}")
    if adapter.evaluation:
        err.print(adapter.evaluation.summary())
    err.print(f"Try: personae generate '{adapter.prompt('…')}' --adapter {adapter.name}")
    return adapter


class _Samples:
    """The sample pictures of a training: saved in a folder, or, where none was named, mentioned once."""

    def __init__(self, training: str, folder: Path | None) -> None:
        self._training, self._folder = training, folder
        self._mentioned = False
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def show(self, event: personae.TrainingEvent) -> None:
        """Save or mention the event's picture, where it has one."""
        if not isinstance(event, personae.SampleReady):
            return
        if self._folder is not None:
            # The id comes from the server: only its last part may choose a place.
            path = event.save(self._folder / Path(event.artifact_id).name)
            err.print(f"step {event.step}: {escape(str(path))}")
        elif not self._mentioned:
            self._mentioned = True
            err.print(f"step {event.step}: first samples; personae watch {self._training} --samples FOLDER saves them")


def _print_plan(plan: personae.TrainingPlan) -> None:
    table = Table(show_header=False, box=None)
    named = {"base_model": plan.base_model, "trigger_word": plan.trigger_word, "class_noun": plan.class_noun}
    for key, value in {**named, **plan.effective_config}.items():
        table.add_row(key, escape(str(value)))
    out.print(table)
    out.print(escape(plan.summary()))
    err.print(
        f"Nothing was started. Without another upload: personae train {plan.dataset} --name … and the same options"
    )
