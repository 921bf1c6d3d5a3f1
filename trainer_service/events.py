"""What can happen to a training, as stored in its event log. Pure data."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service_kit.adapter_manifest import EvaluationEntry
from service_kit.document import Document
from trainer_service.lifecycle import Stage, State


class Failure(BaseModel):
    """Why a training failed: `reason` for programs, `message` for people."""

    model_config = ConfigDict(frozen=True)

    reason: str
    message: str


class StateChanged(BaseModel):
    """The training moved to another state that is not final."""

    kind: Literal["state_changed"] = "state_changed"
    state: State


class StageStarted(BaseModel):
    """A named part of the work began."""

    kind: Literal["stage_started"] = "stage_started"
    stage: Stage


class Progress(BaseModel):
    """How far a stage is; only the latest of a moment is kept."""

    kind: Literal["progress"] = "progress"
    stage: Stage
    completed: int
    total: int
    units_per_second: float
    time_left_s: float | None
    loss: float | None = None
    learning_rate: float | None = None


class CheckpointSaved(BaseModel):
    """A checkpoint is complete in the bucket."""

    kind: Literal["checkpoint_saved"] = "checkpoint_saved"
    step: int


class Notice(BaseModel):
    """Something a person should know, while the training goes on."""

    kind: Literal["notice"] = "notice"
    reason: str
    message: str


class Evaluated(BaseModel):
    """The adapter was measured, shortly before it is published."""

    kind: Literal["evaluated"] = "evaluated"
    evaluation: EvaluationEntry


class Validated(BaseModel):
    """The weights that count were validated; the best so far are what is published."""

    kind: Literal["validated"] = "validated"
    step: int
    loss: float
    best: bool


class SampleReady(BaseModel):
    """A sample picture lies in the bucket, as a file of the training named by `artifact_id`."""

    kind: Literal["sample_ready"] = "sample_ready"
    step: int
    prompt: str
    seed: int
    artifact_id: str
    memorisation: float | None
    content: bytes = Field(default=b"", exclude=True)
    """The file; not part of the log, filled in for whoever watches."""


class Ended(BaseModel):
    """The training reached a final state: the last event."""

    kind: Literal["ended"] = "ended"
    state: State
    failure: Failure | None = None
    adapter: str = ""


Happening = (
    StateChanged | StageStarted | Progress | CheckpointSaved | Notice | Validated | SampleReady | Evaluated | Ended
)


class Event(BaseModel):
    """One entry of the log. Sequences start at 1 and have no holes; `epoch` is its writer's."""

    sequence: int
    time: datetime
    epoch: int
    what: Annotated[Happening, Field(discriminator="kind")]


class EventSegment(Document):
    """A run of events, as stored under the sequence of the first."""

    epoch: int
    events: tuple[Event, ...]
