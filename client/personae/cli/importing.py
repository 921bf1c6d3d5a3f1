"""The command `import`."""

from pathlib import Path
from typing import Annotated

import typer

import personae
from personae.cli import json_output
from personae.cli.access import connected
from personae.cli.defaults import TRAINER
from personae.cli.options import Project, Trainer
from personae.cli.terminal import out


def import_adapter(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A LoRA as safetensors, of any program named above.")],
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON alone: {adapter}, with the fields of personae.Adapter.")
    ] = False,
) -> None:
    """Make an adapter of a LoRA file from elsewhere, and print its name.

    The file is safetensors, at most 1 GiB, and may come from: diffusers and PEFT (lora_A and lora_B, lora.down and
    lora.up, lora_linear_layer, the older attn.processor names); Kohya's scripts and ComfyUI (lora_unet_…, lora_te_…,
    with alpha), for Stable Diffusion 1 and 2 and for SDXL. DoRA is taken over outputs. Which it is, is found out from
    the names of its tensors; its metadata is not read. Refused: LoHa, LoKr, OFT, (IA)3, textual inversions, whole
    checkpoints, pickles (.pt, .ckpt), and layers that the base model does not have.
    """
    consent = None
    if consent_given_by or consent_purpose or consent_evidence:
        consent = personae.Consent(consent_given_by, consent_purpose, consent_evidence)
    with connected(context, trainer, project=project) as client:
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
    if as_json:
        json_output.write({"adapter": made})
    else:
        out.print(made.name)
