"""What a worker tells the service that started it, for its metrics.

Its one rule: telling holds nothing up. Where nobody reads, what would be told is dropped.
"""

import json
import select
import threading
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from trainer_service.events import CheckpointSaved, Happening, Progress, StageStarted
from trainer_service.lifecycle import Stage

Tell = Callable[[Mapping[str, object]], None]
"""Takes an observation: see `trainer_service/metrics.py` for those that are understood."""

STEPS_EVERY_S = 2.0


class Pipe:
    """The answers of a warm worker: one JSON object a line, from any thread."""

    def __init__(self, answers: TextIO) -> None:
        self._answers = answers
        self._lock = threading.Lock()

    def say(self, message: Mapping[str, object]) -> None:
        """Write an answer, whose reader waits for it. Raises BrokenPipeError."""
        with self._lock:
            self._answers.write(json.dumps(message) + "\n")
            self._answers.flush()

    def tell(self, said: Mapping[str, object]) -> None:
        """Write an observation if that takes no waiting: a pipe that is ready takes 4 KiB at once."""
        with self._lock:
            if not select.select([], [self._answers], [], 0)[1]:
                return
            try:
                self._answers.write(json.dumps({"observed": said}) + "\n")
                self._answers.flush()
            except BrokenPipeError:
                # Standard input closes too, and that ends us.
                pass


class Account:
    """Makes observations of a training's events: seconds by stage, steps and their speed, checkpoints."""

    def __init__(self, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._stage: Stage | None = None
        self._began_s = 0.0
        self._told_s = float("-inf")
        self._told_steps: int | None = None

    def note(self, what: Happening) -> None:
        """Look at an event as it happens."""
        match what:
            case StageStarted(stage=stage):
                self.close()
                self._stage, self._began_s = stage, self._clock()
            case Progress(stage=Stage.STEPPING):
                self._note_steps(what)
            case CheckpointSaved():
                self._tell({"checkpoint": what.step})

    def close(self) -> None:
        """The stage is over, however it ended."""
        if self._stage is not None:
            self._tell({"stage": str(self._stage), "seconds": self._clock() - self._began_s})
        self._stage = None

    def _note_steps(self, progress: Progress) -> None:
        now = self._clock()
        if self._told_steps is None:
            # A resumed training begins with steps that others made; those of the first report, a few, are not counted.
            self._told_steps = progress.completed
        if now - self._told_s < STEPS_EVERY_S and progress.completed < progress.total:
            return
        self._tell({"steps": progress.completed - self._told_steps, "per_second": float(progress.units_per_second)})
        self._told_s, self._told_steps = now, progress.completed
