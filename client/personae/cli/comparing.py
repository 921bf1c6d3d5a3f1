"""The command `compare`: the same prompt and seeds by the base model alone and by each adapter, on one sheet."""

from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from rich.markup import escape

import personae
from personae.cli import contact_sheet, json_output, terminal_pictures
from personae.cli.access import connected
from personae.cli.defaults import INFERENCE, TRAINER
from personae.cli.generating import weighted
from personae.cli.options import Applied, Inference, NoPictures, Project, Trainer
from personae.cli.outcomes import Interrupted
from personae.cli.progress import GenerationBar
from personae.cli.terminal import err, out, short
from personae.requests import AdapterChoice

_SEEDS = (1000, 1001, 1002, 1003)
_SMALLEST_PX, _LARGEST_PX = 256, 512
_SEED_LINE_PX = 20


def compare(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What to draw, in quotes; with an adapter's trigger word.")],
    adapter: Applied = None,
    seed: Annotated[
        list[int] | None,
        typer.Option("--seed", "--seeds", help="A row of the sheet; may be repeated. Default: 1000 to 1003."),
    ] = None,
    negative_prompt: Annotated[str, typer.Option(help="What to avoid.")] = "",
    guidance_scale: Annotated[
        float | None, typer.Option(help="How closely to follow the prompt; default: the base model's.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps; default: the base model's.")] = None,
    output: Annotated[Path, typer.Option(help="The sheet, a PNG; what is there is overwritten.")] = Path("compare.png"),
    no_pictures: NoPictures = False,
    trainer: Trainer = TRAINER,
    inference: Inference = INFERENCE,
    project: Project = "default",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print JSON alone: {path, prompt, base_model, seeds, columns: [{adapter, weight, digests}]}; the base "
            "model's adapter is null, and so is the digest of a filtered image.",
        ),
    ] = False,
) -> None:
    """Draw one prompt with the base model alone and with each adapter, from the same seeds; print the sheet's path.

    Columns are the base model and the adapters, rows are the seeds. All adapters must be of one base model.
    """
    chosen = [_pair(weighted(text)) for text in adapter or []]
    if not chosen:
        raise personae.InvalidRequest([personae.Violation("--adapter", "name one at least")])
    seeds = list(dict.fromkeys(seed or _SEEDS))
    try:
        with connected(context, trainer, inference, project=project) as client:
            adapters = [(client.get_adapter(name), weight) for name, weight in chosen]
            base_model = _common_base_model([found for found, _ in adapters])
            columns: list[tuple[personae.Adapter | None, float]] = [(None, 0.0), *adapters]
            drawn = []
            for applied, weight in columns:
                description = short(applied.name) if applied else base_model
                with GenerationBar(err, description) as bar:
                    images = client.generate(
                        prompt,
                        adapters=[] if applied is None else [(applied, weight)],
                        seeds=seeds,
                        base_model=base_model,
                        negative_prompt=negative_prompt,
                        guidance_scale=guidance_scale,
                        steps=steps,
                        on_progress=bar.show,
                    )
                    drawn.append(sorted(images, key=lambda image: image.index))
    except KeyboardInterrupt:
        raise Interrupted("Interrupted: no sheet was written.") from None
    panels = [
        _panel(base_model, applied, weight, images) for (applied, weight), images in zip(columns, drawn, strict=True)
    ]
    largest = max(max(picture.size) for panel in panels for picture, _ in panel.pictures)
    grid = contact_sheet.Grid(1, min(max(largest, _SMALLEST_PX), _LARGEST_PX), _SEED_LINE_PX)
    path = contact_sheet.write(output, f"“{prompt}”", panels, grid)
    if as_json:
        told = [
            {
                "adapter": applied.name if applied else None,
                "weight": weight if applied else None,
                "digests": [image.digest or None for image in images],
            }
            for (applied, weight), images in zip(columns, drawn, strict=True)
        ]
        json_output.write({"path": path, "prompt": prompt, "base_model": base_model, "seeds": seeds, "columns": told})
        return
    out.print(escape(str(path)))
    if not no_pictures:
        with Image.open(path) as sheet:
            terminal_pictures.draw(out, sheet.copy, columns=out.width)


def _pair(choice: AdapterChoice) -> tuple[str, float]:
    name, weight = choice if isinstance(choice, tuple) else (choice, 1.0)
    assert isinstance(name, str)
    return name, weight


def _common_base_model(adapters: list[personae.Adapter]) -> str:
    """The base model of all. Raises InvalidRequest where there are several."""
    found = {adapter.base_model for adapter in adapters}
    if len(found) > 1:
        said = ", ".join(f"{short(adapter.name)} is of {adapter.base_model}" for adapter in adapters)
        raise personae.InvalidRequest([personae.Violation("--adapter", f"{said}; allowed are those of one base model")])
    return found.pop()


def _panel(
    base_model: str, applied: personae.Adapter | None, weight: float, images: list[personae.Image]
) -> contact_sheet.Panel:
    pictures = [
        (_blank(), f"seed {image.seed}, filtered") if image.filtered else (image.picture(), f"seed {image.seed}")
        for image in images
    ]
    if applied is None:
        return contact_sheet.Panel(base_model, "base model, no adapter", pictures)
    adapter_id, _, version = short(applied.name).partition("/versions/")
    told = [f"version {version}", *([f"weight {weight:g}"] if weight != 1 else [])]
    if applied.evaluation:
        told.append(applied.evaluation.summary())
    return contact_sheet.Panel(adapter_id, ", ".join(told), pictures)


def _blank() -> Image.Image:
    """Stands where a checker refused the image."""
    return Image.new("RGB", (_SMALLEST_PX, _SMALLEST_PX), "#e8e5de")
