"""The command `generate`."""

from pathlib import Path
from typing import Annotated

import typer

import personae
from personae.cli.access import connected
from personae.cli.options import INFERENCE, Inference, Project
from personae.cli.progress import GenerationBar
from personae.cli.terminal import err, out
from personae.requests import AdapterChoice
from personae.vocabulary import ImageFormat, Scheduler


def generate(
    context: typer.Context,
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
    start: Annotated[
        str | None, typer.Option(metavar="FILE|NAME", help="Picture to start from: a file, or one of a dataset.")
    ] = None,
    strength: Annotated[float | None, typer.Option(help="How far to leave that picture, above 0 to 1.")] = None,
    mask: Annotated[Path | None, typer.Option(metavar="FILE", help="PNG; white is what is drawn anew.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("."),
    inference: Inference = INFERENCE,
    project: Project = "default",
) -> None:
    """Generate images and print the path of each as it is finished."""
    output.mkdir(parents=True, exist_ok=True)
    with connected(context, inference=inference, project=project) as client, GenerationBar(err, "generating") as bar:
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
            start=start,
            strength=strength,
            mask=mask,
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
