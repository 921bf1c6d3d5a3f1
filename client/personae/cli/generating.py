"""The command `generate`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

import personae
from personae.cli import json_output, terminal_pictures
from personae.cli.access import connected
from personae.cli.defaults import INFERENCE
from personae.cli.options import Applied, Inference, NoPictures, Project
from personae.cli.outcomes import Interrupted
from personae.cli.progress import GenerationBar
from personae.cli.terminal import beside_bars, err
from personae.requests import AdapterChoice
from personae.vocabulary import ImageFormat, Scheduler


def generate(
    context: typer.Context,
    prompts: Annotated[list[str], typer.Argument(help="What to draw; each prompt in quotes.")],
    adapter: Applied = None,
    seed: Annotated[list[int] | None, typer.Option(help="One image of each prompt; may be repeated.")] = None,
    images_per_prompt: Annotated[
        int | None, typer.Option(help="Images of each prompt without --seed; default: 1.")
    ] = None,
    base_model: Annotated[str, typer.Option(help="Base model; default: that of the adapter.")] = "",
    negative_prompt: Annotated[str, typer.Option(help="What to avoid.")] = "",
    guidance_scale: Annotated[
        float | None, typer.Option(help="How closely to follow the prompt; default: the base model's.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps; default: the base model's.")] = None,
    scheduler: Annotated[
        Scheduler | None, typer.Option(help="How the noise is removed; default: the base model's.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="In pixels; default: the base model's.")] = None,
    height: Annotated[int | None, typer.Option(help="In pixels; default: the base model's.")] = None,
    image_format: Annotated[ImageFormat, typer.Option("--format", help="File format.")] = "png",
    start: Annotated[
        str | None, typer.Option(metavar="FILE|NAME", help="Picture to start from: a file, or one of a dataset.")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="How far to leave that picture, above 0 to 1; default: 0.8, with --mask 1.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PNG, with --start; white is what is drawn anew.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the images; made where it is missing.")] = Path("."),
    no_pictures: NoPictures = False,
    inference: Inference = INFERENCE,
    project: Project = "default",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print JSON alone, an object a line: {event: progress, …} as it goes, {event: image, path, index, "
            "seed, prompt, digest, filtered, …} for each image, last {event: done, saved, filtered}.",
        ),
    ] = False,
) -> None:
    """Generate images and print the path of each as it is finished: INDEX-SEED.FORMAT in the folder.

    Ctrl-C cancels what is missing and says what that is; images that were saved stay.
    """
    output.mkdir(parents=True, exist_ok=True)
    came: dict[int, bool] = {}
    total = 0
    try:
        with (
            connected(context, inference=inference, project=project) as client,
            GenerationBar(err, "generating") as bar,
        ):

            def show(progress: personae.GenerationProgress) -> None:
                nonlocal total
                total = progress.total
                bar.show(progress)
                if as_json:
                    json_output.write({"event": "progress", **asdict(progress)})

            for image in client.generate(
                prompts,
                adapters=[weighted(text) for text in adapter or []],
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
                on_progress=show,
            ):
                path = None
                if not image.filtered:
                    path = image.save(output / f"{image.index:03d}-{image.seed}.{image_format}")
                came[image.index] = image.filtered
                _show(image, path, as_json=as_json, drawn=not no_pictures)
    except KeyboardInterrupt:
        raise Interrupted(_missing(prompts, seed or [], came, total, output)) from None
    if as_json:
        filtered = sum(came.values())
        json_output.write({"event": "done", "saved": len(came) - filtered, "filtered": filtered})


def weighted(text: str) -> AdapterChoice:
    """`NAME` or `NAME=WEIGHT`. Raises InvalidRequest."""
    name, separator, weight = text.partition("=")
    try:
        return (name, float(weight)) if separator else name
    except ValueError:
        raise personae.InvalidRequest(
            [personae.Violation("--adapter", f"found {text!r}; allowed is NAME or NAME=WEIGHT")]
        ) from None


def _show(image: personae.Image, path: Path | None, *, as_json: bool, drawn: bool) -> None:
    if as_json:
        json_output.write({"event": "image", "path": path, **json_output.plain(image)})
    elif path is None:
        err.print(f"image {image.index} (seed {image.seed}) was filtered")
    else:
        beside_bars().print(escape(str(path)))
        if drawn:
            terminal_pictures.draw(beside_bars(), image.picture)


def _missing(prompts: Sequence[str], seeds: Sequence[int], came: dict[int, bool], total: int, output: Path) -> str:
    """What an interrupted generation has left behind, and how to have the rest."""
    if not total:
        return "Interrupted before anything was drawn."
    saved = len(came) - sum(came.values())
    said = f"Interrupted: {saved} of {total} images are saved in {output}."
    missing = [index for index in range(total) if index not in came]
    if not seeds:
        return f"{said} The other {len(missing)} cannot be asked for again, since the server chose their seeds."
    lines = [
        f"  {prompts[place]!r}: " + " ".join(f"--seed {seeds[index % len(seeds)]}" for index in missing_here)
        for place in range(len(prompts))
        if (missing_here := [index for index in missing if index // len(seeds) == place])
    ]
    return "\n".join([f"{said} Missing, with the same options:", *lines])
