"""What a notebook shows: a training as it goes on, and images as a grid while they come.

Nothing here needs IPython; where there is no notebook, nothing is drawn.
"""

import base64
import importlib
import io
import sys
from collections.abc import Callable, Iterable
from html import escape
from typing import Any

from PIL import Image as Pillow

from personae.events import Ended, Notice, Progress, SampleReady, StageStarted, StateChanged, TrainingEvent, Validated
from personae.images import EncodedImage, Image

_TILE_PX = 160
# A page with thousands of pictures in it can no longer be saved.
_MOST_TILES = 100


class Images(list[Image]):
    """Images in a list that a notebook shows as a grid."""

    def __init__(self, images: Iterable[Image] = ()) -> None:
        super().__init__(images)
        self._tiles: dict[Image, str] = {}  # a grid that grows is drawn often

    def _repr_html_(self) -> str:
        shown = self[:_MOST_TILES]
        self._tiles = {image: self._tiles.get(image) or _image_tile(image) for image in shown}
        more = f"<p>and {len(self) - len(shown)} more</p>" if len(self) > len(shown) else ""
        return f"<div>{''.join(self._tiles[image] for image in shown)}{more}</div>"


class TrainingView:
    """How far a training is, for people: what its events said last."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._now = "waiting for its events"
        self._best = ""
        self._completed, self._total = 0, 0
        self._notices: list[str] = []
        self._samples: dict[tuple[str, int], str] = {}

    def take(self, event: TrainingEvent) -> None:
        """Remember what an event says."""
        match event:
            case StateChanged(state=state):
                self._now, self._total = state, 0
            case StageStarted(stage=stage):
                self._now, self._total = stage.replace("-", " "), 0
            case Progress():
                loss = f", loss {event.loss:.4f}" if event.loss is not None else ""
                done = f"{event.stage.replace('-', ' ')} {event.completed}/{event.total}"
                self._now = f"{done}{loss}, {event.time_left_s:.0f} s left"
                self._completed, self._total = event.completed, event.total
            case Validated(best=True):
                self._best = f"best so far: validation loss {event.loss:.4f} at step {event.step}"
            case Notice(message=message):
                self._notices.append(message)
            case SampleReady():
                # A sample takes the place of the one before it of the same prompt and seed.
                self._samples[event.prompt, event.seed] = _tile(event, f"step {event.step}")
            case Ended():
                self._now = f"{event.state}: {event.failure_message or event.adapter}".removesuffix(": ")
                self._total = 0

    def __repr__(self) -> str:
        return f"<{self._title}: {self._now}>"

    def _repr_html_(self) -> str:
        bar = f'<progress style="width:100%" max="{self._total}" value="{self._completed}"></progress>'
        lines = [f"<b>{escape(self._title)}</b> {escape(self._now)}", *map(escape, [self._best, *self._notices])]
        said = "<br>".join(line for line in lines if line)
        return f"<div>{said}{bar if self._total else ''}<div>{''.join(self._samples.values())}</div></div>"


def show(images: Iterable[Image]) -> Images:
    """Collect images, as from `generate`, and return them; in a notebook they are drawn as they come."""
    collected = Images()
    update = _drawn(collected)
    for image in images:
        collected.append(image)
        if update:
            update()
    return collected


def live_view(title: str) -> Callable[[TrainingEvent], None] | None:
    """What draws a training's events below the cell that runs; None where there is no notebook."""
    view = TrainingView(title)
    update = _drawn(view)
    if update is None:
        return None
    draw = update

    def take(event: TrainingEvent) -> None:
        view.take(event)
        draw()

    return take


def _drawn(shown: object) -> Callable[[], None] | None:
    """Draw it below the cell that runs; gives what draws it anew. None where there is no notebook."""
    # Who runs in a notebook has IPython imported; its terminal has no kernel, and could not draw in place.
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if getattr(shell, "kernel", None) is None:
        return None
    handle = importlib.import_module("IPython.display").display(shown, display_id=True)
    return lambda: handle.update(shown)


def _image_tile(image: Image) -> str:
    if image.filtered:
        return _figure("", "filtered")
    return _tile(image, f"{image.prompt} ({image.seed})") if image.content else _figure("", image.uri)


def _tile(image: EncodedImage, caption: str) -> str:
    picture = image.picture().convert("RGB")
    picture.thumbnail((_TILE_PX, _TILE_PX), Pillow.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return _figure(f'<img src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">', caption)


def _figure(picture: str, caption: str) -> str:
    style = f"display:inline-block;vertical-align:top;margin:4px;width:{_TILE_PX}px"
    return f'<figure style="{style}">{picture}<figcaption><small>{escape(caption)}</small></figcaption></figure>'
