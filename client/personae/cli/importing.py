"""The command `import`."""

from pathlib import Path
from typing import Annotated

import typer

import personae
from personae.cli.options import TRAINER, Project, Trainer
from personae.cli.terminal import out


def import_adapter(
    file: Annotated[
        Path, typer.Argument(help="A LoRA in safetensors, of diffusers, PEFT, Kohya's scripts or ComfyUI.")
    ],
    name: Annotated[str, typer.Option(help="Id of the adapter to make.")],
    base_model: Annotated[str, typer.Option(help="The base model that the file was made for.")],
    trigger_word: Annotated[str, typer.Option(help="The word that calls the subject.")] = "",
    class_noun: Annotated[str, typer.Option(help="What the subject is.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the adapter, kept with it.")] = "",
    consent_given_by: Annotated[str, typer.Option(help="Who gave the right to learn from the pictures.")] = "",
    consent_purpose: Annotated[str, typer.Option(help="For what they gave it, in their words.")] = "",
    consent_evidence: Annotated[str, typer.Option(help="Where that is recorded.")] = "",
    new_version: Annotated[
        bool, typer.Option("--new-version", help="Make the next version where the adapter exists.")
    ] = False,
    trainer: Trainer = TRAINER,
    project: Project = "default",
) -> None:
    """Make an adapter of a LoRA file from elsewhere, and print its name."""
    consent = None
    if consent_given_by or consent_purpose or consent_evidence:
        consent = personae.Consent(consent_given_by, consent_purpose, consent_evidence)
    with personae.Client(trainer, project=project) as client:
        made = client.import_adapter(
            file,
            name=name,
            base_model=base_model,
            trigger_word=trigger_word,
            class_noun=class_noun,
            licence=licence,
            consent=consent,
            new_version=new_version,
        )
        out.print(made.name)
