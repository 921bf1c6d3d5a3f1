"""What a terminal shows while something runs: one bar for each stage of a training, one for a generation.

Drawn on stderr, so that stdout keeps the results. Away from a terminal the bars are printed once, when they are done.
"""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from personae.events import Ended, Notice, StageStarted, StateChanged, TrainingEvent, Validated
from personae.events import Progress as TrainingProgress
from personae.images import GenerationProgress

_STAGES = {
    "loading-base-model": "loading the base model",
    "fetching-images": "fetching the pictures",
    "generating-class-images": "drawing class pictures",
    "encoding": "encoding",
    "stepping": "training",
    "proving": "proving the adapter",
    "evaluating": "evaluating the adapter",
    "uploading": "publishing",
}


class _TimeColumn(ProgressColumn):
    """Time left while a task runs, time taken once it has finished."""

    def render(self, task: Task) -> Text:
        if task.finished or task.stop_time is not None:
            return Text(f"{task.elapsed or 0:.0f} s", style="progress.elapsed")
        left_s = task.fields.get("time_left_s")
        return Text(f"{left_s:.0f} s left" if left_s else f"{task.elapsed or 0:.0f} s …", style="progress.remaining")


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        _TimeColumn(),
        console=console,
    )


class TrainingBars:
    """A bar for each stage, with step, loss, speed and time left; an event log drawn as it comes."""

    def __init__(self, console: Console) -> None:
        self._bars = _bars(console)
        self._stages: dict[str, TaskID] = {}
        self._current: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_current(finished=error is None)
        self._bars.stop()

    def show(self, event: TrainingEvent) -> None:
        """Draw one event."""
        match event:
            case StateChanged(state="queued"):
                self._begin("queued", "waiting for a worker")
            case StageStarted(stage=stage):
                self._begin(stage, _STAGES.get(stage, stage))
            case TrainingProgress():
                task = self._begin(event.stage, _STAGES.get(event.stage, event.stage))
                loss = f"loss {event.loss:.4f}  " if event.loss is not None else ""
                self._bars.update(
                    task,
                    completed=event.completed,
                    total=event.total,
                    note=f"{loss}{event.units_per_second:.1f}/s",
                    time_left_s=event.time_left_s,
                )
            case Validated():
                self._bars.console.print(f"step {event.step}: validation loss {event.loss:.4f}{', best' * event.best}")
            case Notice(message=message):
                self._bars.console.print(escape(message))
            case Ended(state=state):
                self._close_current(finished=state == "succeeded")

    def _begin(self, stage: str, description: str) -> TaskID:
        if stage not in self._stages:
            self._close_current(finished=True)
            self._stages[stage] = self._bars.add_task(description, total=None, note="")
        self._current = self._stages[stage]
        return self._current

    def _close_current(self, *, finished: bool) -> None:
        if self._current is None:
            return
        task = next(task for task in self._bars.tasks if task.id == self._current)
        if finished:
            # A stage may end between two of its progress events, and some have none.
            total = task.total or 1
            self._bars.update(self._current, completed=total, total=total)
        self._bars.stop_task(self._current)
        self._current = None


class GenerationBar:
    """One bar over the images of a generation."""

    def __init__(self, console: Console, description: str) -> None:
        self._bars = _bars(console)
        self._task = self._bars.add_task(description, total=None, note="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop_task(self._task)
        # What failed before its first image has nothing to show.
        self._bars.update(self._task, visible=error is None or self._bars.tasks[0].completed > 0)
        self._bars.stop()

    def show(self, progress: GenerationProgress) -> None:
        """Draw how far it is; made for `on_progress`."""
        note = f"{progress.images_ahead} images ahead" if progress.images_ahead else ""
        if progress.total_steps:
            note = f"step {progress.completed_steps}/{progress.total_steps}"
        self._bars.update(self._task, completed=progress.finished, total=progress.total, note=note)
