"""The events of a training, in the order of its log: sequence numbers start at 1 and have no holes.

`Ended` is always the last one.
"""

from dataclasses import dataclass, field
from datetime import datetime

from personae.images import EncodedImage
from personae.resources import Evaluation


@dataclass(frozen=True)
class TrainingEvent:
    """What every event has."""

    sequence: int
    """Position in the log, from 1."""
    time: datetime
    """When it was written, by the writer's clock."""


@dataclass(frozen=True)
class StateChanged(TrainingEvent):
    """The training moved to another state that is not final."""

    state: str


@dataclass(frozen=True)
class StageStarted(TrainingEvent):
    """A named part of the work began."""

    stage: str


@dataclass(frozen=True)
class Progress(TrainingEvent):
    """How far the current stage is."""

    stage: str
    completed: int
    """Units finished: optimizer steps while `stepping`, pictures while generating, encoding or `evaluating`."""
    total: int
    loss: float | None
    """Mean over the steps since the last progress; None unless `stepping`."""
    learning_rate: float | None
    units_per_second: float
    time_left_s: float


@dataclass(frozen=True)
class CheckpointSaved(TrainingEvent):
    """A checkpoint is complete: if the worker dies, another goes on from here."""

    step: int


@dataclass(frozen=True)
class Validated(TrainingEvent):
    """The adapter as it is now was validated, on fixed noise and timesteps."""

    step: int
    """Optimizer steps behind it."""
    loss: float
    """Mean over held-out pictures, or over training pictures where none are held out."""
    best: bool
    """Whether it is the lowest so far: this is then what will be published."""


@dataclass(frozen=True)
class SampleReady(TrainingEvent, EncodedImage):
    """A picture made by the adapter as it is now; always of the same prompts and seeds."""

    step: int
    """Optimizer steps behind it."""
    prompt: str
    seed: int
    content: bytes = field(repr=False)
    """The file: PNG, or WebP where a PNG would be larger than 1 MiB."""
    artifact_id: str
    """For example `samples/000035-0.png`: what `download_adapter` takes once the adapter exists."""
    memorisation: float | None
    """Above 1, it is nearer to a training picture than those are to each other: it copies. None: not measured."""


@dataclass(frozen=True)
class Notice(TrainingEvent):
    """Something a person should know, while the training goes on."""

    reason: str
    """Stable, for programs, for example RESUMED or EARLY_STOPPED; `training.proto` has them all."""
    message: str


@dataclass(frozen=True)
class Evaluated(TrainingEvent):
    """The adapter was measured, shortly before it is published."""

    evaluation: Evaluation


@dataclass(frozen=True)
class Ended(TrainingEvent):
    """The training reached a final state."""

    state: str
    """`succeeded`, `failed` or `cancelled`"""
    adapter: str
    """The adapter version that now exists; empty unless it succeeded."""
    failure_reason: str
    """Empty unless it failed."""
    failure_message: str
