"""The commands that train: `train` and `watch`."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

import personae
from personae import calls
from personae.cli import completion, json_output, terminal_pictures
from personae.cli.access import connected
from personae.cli.datasets import print_findings
from personae.cli.defaults import TRAINER
from personae.cli.options import NoPictures, Project, Trainer
from personae.cli.outcomes import Interrupted
from personae.cli.progress import TrainingBars
from personae.cli.reports import Open, ReportPath, save_report
from personae.cli.settings import chosen
from personae.cli.terminal import err, out
from personae.vocabulary import AdapterType, Preset

OnInterrupt = Annotated[
    Literal["detach", "cancel"],
    typer.Option(help="What Ctrl-C does to the training: it goes on without us, or is cancelled."),
]
Samples = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Save sample pictures there as they are drawn.")]
_STREAM = (
    "an object a line: each event of the training with the fields of the client's class ({event: progress, sequence, "
    "…}, sample_ready with `path`), last {event: adapter, adapter}"
)


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
    preset: Annotated[
        Preset | None, typer.Option(help="How much time, or memory, it may take; default: balanced.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps; default: the preset's.")] = None,
    rank: Annotated[int | None, typer.Option(help="LoRA rank; default: the base model's.")] = None,
    adapter_type: Annotated[AdapterType | None, typer.Option(help="What is trained; default: lora.")] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Side of the training pictures in pixels; default: the base model's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random; default: the server draws one.")] = None,
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
    on_interrupt: OnInterrupt = "detach",
    no_pictures: NoPictures = False,
    trainer: Trainer = TRAINER,
    project: Project = "default",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print JSON alone: first {event: dataset, dataset} and {event: training, training}, with --dry-run "
            f"{{event: plan, plan}} instead, then {_STREAM}; before that {{event: report, path}}, null where there is "
            "none.",
        ),
    ] = False,
) -> None:
    """Upload pictures, train an adapter on them, and print its name.

    What is not given is chosen for the base model. Ctrl-C leaves the training running, and `personae watch` takes it up
    again; with `--on-interrupt cancel` it cancels the training.
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
        if as_json:
            json_output.write({"event": "dataset", "dataset": dataset})
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
            _print_plan(made, as_json)
            return
        if as_json:
            json_output.write({"event": "training", "training": made.record})
        elif detach:
            out.print(made.name)
        if detach:
            return
        adapter = _follow(made, on_interrupt, _Samples(made.name, samples, drawn=not no_pictures), as_json)
        saved = save_report(client, adapter, report_path, open_report)
        if as_json:
            json_output.write({"event": "report", "path": saved})
        _conclude(adapter, as_json)


def watch(
    context: typer.Context,
    training: Annotated[str, typer.Argument(help="Id or name of a training.", autocompletion=completion.trainings)],
    samples: Samples = None,
    on_interrupt: OnInterrupt = "detach",
    no_pictures: NoPictures = False,
    trainer: Trainer = TRAINER,
    project: Project = "default",
    as_json: Annotated[bool, typer.Option("--json", help=f"Print JSON alone: {_STREAM}.")] = False,
) -> None:
    """Follow a training from its first event to its end, and print the name of the adapter that it made.

    Ctrl-C leaves the training running; with `--on-interrupt cancel` it cancels the training.
    """
    with connected(context, trainer, project=project) as client:
        followed = client.get_training(training)
        drawn = _Samples(followed.name, samples, drawn=not no_pictures)
        _conclude(_follow(followed, on_interrupt, drawn, as_json), as_json)


def _follow(
    training: personae.Training, on_interrupt: Literal["detach", "cancel"], samples: "_Samples", as_json: bool
) -> personae.Adapter:
    try:
        with TrainingBars(err) as bars:

            def show(event: personae.TrainingEvent) -> None:
                bars.show(event)
                saved = samples.show(event)
                if as_json:
                    json_output.write(json_output.event(event, saved))

            return training.wait(on_event=show)
    except KeyboardInterrupt:
        if on_interrupt == "cancel":
            training.cancel()
            raise Interrupted(f"Cancelled: {training.name}") from None
        raise Interrupted(f"The training goes on. Take it up again: personae watch {training.name}") from None


def _conclude(adapter: personae.Adapter, as_json: bool) -> None:
    """What is said of a training that has succeeded."""
    if as_json:
        json_output.write({"event": "adapter", "adapter": adapter})
        return
    out.print(adapter.name)
    if adapter.validation_loss is not None:
        err.print(f"step {adapter.chosen_step}, validation loss {adapter.validation_loss:.4f}")
    if adapter.evaluation:
        err.print(adapter.evaluation.summary())
    err.print(f"Try: personae generate '{adapter.prompt('…')}' --adapter {adapter.name}")


class _Samples:
    """The sample pictures of a training: drawn in the terminal, saved in a folder or, without one, mentioned once."""

    def __init__(self, training: str, folder: Path | None, *, drawn: bool) -> None:
        self._training, self._folder, self._drawn = training, folder, drawn
        self._mentioned = False
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def show(self, event: personae.TrainingEvent) -> Path | None:
        """Show, save or mention the event's picture, where it has one; where it was saved."""
        if not isinstance(event, personae.SampleReady):
            return None
        saved = None
        if self._folder is not None:
            # The id comes from the server: only its last part may choose a place.
            saved = event.save(self._folder / Path(event.artifact_id).name)
            err.print(f"step {event.step}: {escape(str(saved))}")
        elif not self._mentioned:
            self._mentioned = True
            err.print(f"step {event.step}: first samples; personae watch {self._training} --samples FOLDER saves them")
        if self._drawn:
            terminal_pictures.draw(err, event.picture)
        return saved


def _print_plan(plan: personae.TrainingPlan, as_json: bool) -> None:
    if as_json:
        json_output.write({"event": "plan", "plan": plan})
        return
    table = Table(show_header=False, box=None)
    named = {"base_model": plan.base_model, "trigger_word": plan.trigger_word, "class_noun": plan.class_noun}
    for key, value in {**named, **plan.effective_config}.items():
        table.add_row(key, escape(str(value)))
    out.print(table)
    out.print(escape(plan.summary()))
    err.print(
        f"Nothing was started. Without another upload: personae train {plan.dataset} --name … and the same options"
    )
