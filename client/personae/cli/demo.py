"""The demo: sixteen pictures in, a character out, all of it over gRPC and through `personae.Client`.

Whatever it starts has stopped when it ends; what stays is the contact sheet, and the training's report beside it.
"""

import io
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

import personae
from personae.cli import contact_sheet, local_stack
from personae.cli.progress import GenerationBar, TrainingBars
from personae.pictures import gather
from personae.requests import AdapterChoice

_PICTURES = Path("base_models", "toon_64", "sets", "mini-d", "train")
_FIRST_SEED = 1000

# None of these is a training picture's caption; no training picture has a blue or a gray background.
_SCENES = (
    "happy, blue background",
    "neutral, gray background",
    "happy, yellow background",
    "neutral, green background",
    "happy, white background",
    "neutral, blue background",
    "happy, gray background",
    "neutral, pink background",
    "happy, blue background, close-up",
    "neutral, yellow background, close-up",
    "happy, orange background, close-up",
    "neutral, green background, small",
    "happy, red background, small",
    "neutral, blue background, tilted right",
    "happy, yellow background, mirrored",
    "happy, black background",
)


class _Clock:
    """Where the time went: named parts, in their order, in seconds."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside as `name`."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.parts[name] = time.monotonic() - begun


def run(output: Path | None, console: Console) -> Path:
    """Run the whole demo and return the path of the contact sheet."""
    root = local_stack.checkout()
    (root / ".local").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="demo-", dir=root / ".local"))
    clock = _Clock()
    leftovers = folder
    try:
        sheet = _tell(root / _PICTURES, folder, output or root / ".local" / "contact-sheet.png", clock, console)
    except Exception:
        leftovers = folder / "store"
        console.print(f"The logs are kept in {folder}")
        raise
    finally:
        shutil.rmtree(leftovers, ignore_errors=True)
    _print_times(clock, console)
    return sheet


def _tell(pictures: Path, folder: Path, output: Path, clock: _Clock, console: Console) -> Path:
    with ExitStack() as stack:
        console.print("starting the object store, the trainer and the inference service")
        with clock.part("start"):
            local = stack.enter_context(local_stack.running(folder / "store", folder, local_stack.Addresses(), {}))
            client = stack.enter_context(personae.Client(local.trainer, local.inference))

        with clock.part("upload"):
            dataset = client.create_dataset(pictures=pictures)
        console.print(f"{dataset.accepted_count} of {len(dataset.images)} pictures accepted")

        with clock.part("training"), TrainingBars(console) as bars:
            adapter = client.train(dataset, name="demo").wait(on_event=bars.show)
        console.print(f"published {adapter.name}")
        if adapter.evaluation:
            console.print(adapter.evaluation.summary())
        output.parent.mkdir(parents=True, exist_ok=True)
        console.print(f"how the training went: {client.download_report(adapter, output.with_suffix('.html'))}")

        with clock.part("generation"):
            base = _generate(client, adapter, [], "base model alone", console)
            adapted = _generate(client, adapter, [adapter], "with the adapter", console)
        stopping = time.monotonic()
    clock.parts["stop"] = time.monotonic() - stopping
    return _write_sheet(pictures, adapter, base, adapted, output)


def _generate(
    client: personae.Client,
    adapter: personae.Adapter,
    applied: list[AdapterChoice],
    description: str,
    console: Console,
) -> list[personae.Image]:
    """One picture of each scene. Both halves of the comparison differ in nothing but `applied`."""
    with GenerationBar(console, description) as bar:
        images = client.generate(
            [adapter.prompt(scene) for scene in _SCENES],
            seeds=[[_FIRST_SEED + place] for place in range(len(_SCENES))],
            base_model=adapter.base_model,
            adapters=applied,
            on_progress=bar.show,
        )
        return sorted(images, key=lambda image: image.index)


def _write_sheet(
    pictures: Path,
    adapter: personae.Adapter,
    base: list[personae.Image],
    adapted: list[personae.Image],
    output: Path,
) -> Path:
    training = [(Image.open(io.BytesIO(picture.content())), picture.caption) for picture in gather(pictures)]
    measured = f"same seeds; {adapter.evaluation.summary()}" if adapter.evaluation else "the same prompts and seeds"
    prompt, seeds = adapter.prompt("…"), f"seeds {_FIRST_SEED} to {_FIRST_SEED + len(_SCENES) - 1}"
    return contact_sheet.write(
        output,
        f"Personae: {len(training)} pictures in, a character out",
        [
            contact_sheet.Panel("Training pictures", "what the adapter learned from", training),
            contact_sheet.Panel(
                "Base model, without the adapter",
                f"“{prompt}”, {seeds}",
                [(image.picture(), scene) for image, scene in zip(base, _SCENES, strict=True)],
            ),
            contact_sheet.Panel(
                "With the adapter",
                measured,
                [(image.picture(), scene) for image, scene in zip(adapted, _SCENES, strict=True)],
            ),
        ],
    )


def _print_times(clock: _Clock, console: Console) -> None:
    table = Table.grid(padding=(0, 3))
    for name, seconds in (*clock.parts.items(), ("in all", sum(clock.parts.values()))):
        table.add_row(name, f"{seconds:6.1f} s")
    console.print(table)
