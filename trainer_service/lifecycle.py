"""The life of a training: its states, as a table of moves. Pure.

Whoever changes a state goes through `move`; a test walks every pair.
"""

from enum import StrEnum


class State(StrEnum):
    """Where a training is. The last three are final."""

    QUEUED = "queued"
    PREPARING = "preparing"
    TRAINING = "training"
    PUBLISHING = "publishing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen."""
        return not MOVES[self]


class Stage(StrEnum):
    """The named parts of a worker's work, in their order."""

    LOADING_BASE_MODEL = "loading_base_model"
    FETCHING_IMAGES = "fetching_images"
    GENERATING_CLASS_IMAGES = "generating_class_images"
    ENCODING = "encoding"
    STEPPING = "stepping"
    PROVING = "proving"
    EVALUATING = "evaluating"
    UPLOADING = "uploading"


# A training goes back to QUEUED when its worker hands it over, and to PREPARING when another worker takes it.
MOVES: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.PREPARING, State.FAILED, State.CANCELLED}),
    State.PREPARING: frozenset({State.QUEUED, State.PREPARING, State.TRAINING, State.FAILED, State.CANCELLED}),
    State.TRAINING: frozenset({State.QUEUED, State.PREPARING, State.PUBLISHING, State.FAILED, State.CANCELLED}),
    State.PUBLISHING: frozenset({State.QUEUED, State.PREPARING, State.SUCCEEDED, State.FAILED, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}

STATE_OF_STAGE: dict[Stage, State] = {
    Stage.LOADING_BASE_MODEL: State.PREPARING,
    Stage.FETCHING_IMAGES: State.PREPARING,
    Stage.GENERATING_CLASS_IMAGES: State.PREPARING,
    Stage.ENCODING: State.PREPARING,
    Stage.STEPPING: State.TRAINING,
    Stage.PROVING: State.PUBLISHING,
    Stage.EVALUATING: State.PUBLISHING,
    Stage.UPLOADING: State.PUBLISHING,
}


class ImpossibleMove(Exception):
    """A defect: somebody tried a move that is not in the table."""


def move(state: State, to: State) -> State:
    """Return `to` if the table allows the move; raise ImpossibleMove otherwise."""
    if to not in MOVES[state]:
        raise ImpossibleMove(f"{state} -> {to}")
    return to
