"""The training record: a training's summary and its lease, changed by compare-and-swap only. Pure.

The lease says which worker may write; every take raises the epoch, and everything a worker writes carries it.
"""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from service_kit.adapter_manifest import KeptConsent
from service_kit.document import Document
from service_kit.names import AdapterName, AdapterVersionName, DatasetName, TrainingName
from trainer_service.events import Failure
from trainer_service.lifecycle import State, move
from trainer_service.training_config import TrainingConfig, training_prompt

HEARTBEAT_S = 5.0
# The holder stops by itself well before anybody else may take over.
HOLDER_PATIENCE_S = 15.0
TAKEOVER_PATIENCE_S = 30.0
# Takes in a row that brought no new checkpoint, after which the training and not the machine is to blame.
MAX_FRUITLESS_TAKES = 5
# Such takes after which a stage that is stuck again fails the training; more than an evaluation is tried
# (`worker/evaluating.py`), so that a judge that hangs costs the numbers and not the adapter.
MAX_STUCK_TAKES = 3


class LeaseLost(Exception):
    """Another worker holds the training, or it has ended: write nothing more."""


class TrainingImage(BaseModel):
    """A picture to train on. `mask_digest` is empty where it has no mask."""

    model_config = ConfigDict(frozen=True)

    digest: str
    caption: str
    mask_digest: str = ""


class TrainingDataset(Document):
    """What a training learns from, as the dataset was when the training was created."""

    digest: str
    images: tuple[TrainingImage, ...]


class DatasetTraining(Document):
    """Kept with a dataset for each training on it: the name of the adapter version that it reserved."""

    adapter: str


class TrainingRecord(Document):
    """A training as stored. `holder` is empty while no worker has it."""

    project: str
    training: str
    request_digest: str
    queue_key: str
    state: State
    dataset: str
    adapter_id: str
    adapter_version: int
    base_model: str
    trigger_word: str
    class_noun: str
    config: TrainingConfig
    given_config: dict[str, int | float | str | bool | tuple[str, ...]]
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    completed_steps: int = 0
    failure: Failure | None = None
    cancel_requested: bool = False
    epoch: int = 0
    holder: str = ""
    renewed_at: datetime | None = None
    fruitless_takes: int = 0
    licence: str = ""
    consent: KeptConsent = None
    deleted: bool = False
    """It counts as missing; the record stays until nobody can hold its lease any more."""
    traceparent: str = ""
    """W3C trace context of the call that created it; empty where nobody traced that."""

    @property
    def name(self) -> TrainingName:
        return TrainingName(self.project, self.training)

    @property
    def dataset_name(self) -> DatasetName:
        return DatasetName(self.project, self.dataset)

    @property
    def adapter(self) -> AdapterVersionName:
        return AdapterName(self.project, self.adapter_id).version(self.adapter_version)

    def prompt(self, caption: str) -> str:
        """The prompt that a picture is trained with."""
        return training_prompt(self.config.caption_template, self.trigger_word, self.class_noun, caption)

    def taken(self, holder: str, now: datetime) -> "TrainingRecord":
        """The record after `holder` takes the lease: a new epoch, from which older holders are shut out."""
        if self.state.is_final:
            raise LeaseLost(f"{self.name} has ended")
        return self.model_copy(
            update={
                "state": move(self.state, State.PREPARING),
                "started_at": self.started_at or now,
                "epoch": self.epoch + 1,
                "holder": holder,
                "renewed_at": now,
                "fruitless_takes": self.fruitless_takes + 1,
            }
        )

    def held(self, holder: str, epoch: int) -> "TrainingRecord":
        """The record itself, if this holder still has it in this epoch. Raises LeaseLost."""
        if self.holder != holder or self.epoch != epoch or self.state.is_final:
            raise LeaseLost(f"{self.name} is now held by {self.holder or 'nobody'} in epoch {self.epoch}")
        return self

    def renewed(self, completed_steps: int, now: datetime) -> "TrainingRecord":
        """The record after a heartbeat."""
        return self.model_copy(update={"completed_steps": completed_steps, "renewed_at": now})

    def moved(self, to: State) -> "TrainingRecord":
        """The record in another state that is not final."""
        return self if self.state == to else self.model_copy(update={"state": move(self.state, to)})

    def checkpointed(self, step: int) -> "TrainingRecord":
        """The record after a checkpoint: the present take was worth it."""
        return self.model_copy(update={"completed_steps": step, "fruitless_takes": 0})

    def released(self) -> "TrainingRecord":
        """The record after its holder hands it over, to be taken by anybody at once."""
        return self.model_copy(update={"state": move(self.state, State.QUEUED), "holder": "", "fruitless_takes": 0})

    def abandoned(self, holder: str) -> "TrainingRecord":
        """The record after `holder` was seen to be dead: as released, but the take still counts as fruitless."""
        if self.holder != holder or self.state.is_final:
            raise LeaseLost(f"{self.name} is not held by {holder}")
        return self.moved(State.QUEUED).model_copy(update={"holder": ""})

    def ended(self, state: State, failure: Failure | None, now: datetime) -> "TrainingRecord":
        """The record in its final state."""
        return self.model_copy(
            update={
                "state": move(self.state, state),
                "failure": failure,
                "ended_at": now,
                "holder": "",
            }
        )


class LeaseWatch:
    """Decides when somebody else's lease may be taken over: after its ETag stood still for 30 s on *our* clock."""

    def __init__(self) -> None:
        self._seen: dict[TrainingName, tuple[str, float]] = {}

    def is_stale(self, name: TrainingName, etag: str, monotonic_s: float) -> bool:
        """Note what was seen now, and tell whether it has been the same for long enough."""
        first_etag, first_s = self._seen.setdefault(name, (etag, monotonic_s))
        if first_etag != etag:
            self._seen[name] = (etag, monotonic_s)
            return False
        return monotonic_s - first_s >= TAKEOVER_PATIENCE_S

    def forget(self, name: TrainingName) -> None:
        """Stop watching a training that was taken or has ended."""
        self._seen.pop(name, None)
