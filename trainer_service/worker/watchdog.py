"""Notices a stage that is stuck, lets go of its training by name, and ends the process.

Its one rule: only silence counts. How long a stage takes is nobody's business here; a stage that gives no sign of life
for longer than any healthy one is hung, and since nothing can interrupt a hung thread, the process goes with it.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Self

from service_kit.call_context import beside
from service_kit.store import ObjectStore, StoreError
from trainer_service.ending import end_training
from trainer_service.events import Failure, Notice
from trainer_service.handing_back import say_handed_back
from trainer_service.lifecycle import Stage, State
from trainer_service.training_record import MAX_STUCK_TAKES, LeaseLost
from trainer_service.worker.exit_code import ExitCode
from trainer_service.worker.lease_keeper import LeaseKeeper
from trainer_service.worker.reporter import SignOfLife

_logger = logging.getLogger(__name__)

# Seconds without a sign of life, for hardware on which a training is bearable at all. Calls to the store give up by
# themselves after half a minute of silence, so a store that is away makes no stage stuck.
PATIENCE_S: dict[Stage, float] = {
    # Gives no sign in between: 24 GB from a network disk at 20 MB/s are 20 minutes.
    Stage.LOADING_BASE_MODEL: 1800,
    # A sign for each picture, of at most 20 MB.
    Stage.FETCHING_IMAGES: 300,
    # A sign for each denoising step of eight pictures, whose decoding gives none: minutes on a CPU.
    Stage.GENERATING_CLASS_IMAGES: 900,
    # A sign for each eight pictures.
    Stage.ENCODING: 900,
    # A sign for each optimizer step, of up to thousands of pictures, and each checkpoint, of up to gigabytes.
    Stage.STEPPING: 1800,
    # No sign: the adapter is read back, and the network predicts a few times.
    Stage.PROVING: 900,
    # As for class pictures, and a judge is loaded.
    Stage.EVALUATING: 900,
    # No sign: one file of at most gigabytes.
    Stage.UPLOADING: 1800,
}
_LOOK_AGAIN_S = 1.0
# For telling the bucket, which may be what hangs.
_LEAVE_WITHIN_S = 60.0


class Watchdog:
    """Watches one training while used as a context.

    factor: on the patience with every stage. let_go: called once, from the watchdog's thread, with the stage and the
    seconds of its silence.
    """

    def __init__(
        self,
        sign_of_life: Callable[[], SignOfLife],
        factor: float,
        let_go: Callable[[Stage, float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sign_of_life = sign_of_life
        self._factor = factor
        self._let_go = let_go
        self._clock = clock
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=beside(self._watch), name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def stuck(self) -> tuple[Stage, float] | None:
        """The stage that is stuck and the seconds of its silence, if it is."""
        sign = self._sign_of_life()
        silent_s = self._clock() - sign.at_s
        return (sign.stage, silent_s) if silent_s > PATIENCE_S[sign.stage] * self._factor else None

    def _watch(self) -> None:
        while not self._stopped.wait(_LOOK_AGAIN_S):
            found = self.stuck()
            if found is not None:
                self._let_go(*found)
                return


def let_go_and_leave(
    store: ObjectStore, keeper: LeaseKeeper, now: Callable[[], datetime], leave: Callable[[int], object]
) -> Callable[[Stage, float], None]:
    """What a worker's watchdog does: let go of the training, then leave the process through `leave`, come what may."""

    def act(stage: Stage, silent_s: float) -> None:
        _logger.error("stage %s gave no sign of life for %.0f s; this process ends", stage, silent_s)
        late = threading.Timer(_LEAVE_WITHIN_S, leave, [ExitCode.TRY_AGAIN])
        late.daemon = True
        late.start()
        try:
            exit_code = let_go(store, keeper, stage, silent_s, now)
        except (LeaseLost, StoreError) as error:
            _logger.warning("left to whoever takes it over: %s", error)
            exit_code = ExitCode.TRY_AGAIN
        late.cancel()
        leave(exit_code)

    return act


def let_go(
    store: ObjectStore, keeper: LeaseKeeper, stage: Stage, silent_s: float, now: Callable[[], datetime]
) -> ExitCode:
    """Hand a stuck training back, or end it where it hung too often or was to be cancelled.

    A machine may hang through no fault of the training, so another worker tries; the take counts as fruitless. Raises
    LeaseLost, StoreError.
    """
    record = keeper.change(lambda record: record)
    silence = f"stage {stage} gave no sign of life for {silent_s:.0f} s"
    if record.cancel_requested:
        end_training(store, record, State.CANCELLED, None, now)
        return ExitCode.DONE
    if record.fruitless_takes >= MAX_STUCK_TAKES:
        message = f"{silence}, at attempt {record.fruitless_takes} since the last checkpoint; see the workers' logs"
        end_training(store, record, State.FAILED, Failure(reason="STAGE_STUCK", message=message), now)
        return ExitCode.FAILED
    handed_back = keeper.change(lambda record: record.abandoned(record.holder))
    notice = Notice(reason="STAGE_STUCK", message=f"{silence}; another worker goes on from the last checkpoint")
    say_handed_back(store, handed_back, now, [notice])
    return ExitCode.TRY_AGAIN
