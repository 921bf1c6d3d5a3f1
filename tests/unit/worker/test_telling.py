"""What a worker tells its service: of stages and steps, and never at the price of waiting."""

import json
import os
import threading

from trainer_service.events import CheckpointSaved, Progress, StageStarted
from trainer_service.lifecycle import Stage
from trainer_service.worker.telling import Account, Pipe

PATIENCE_S = 10.0


def progress(completed: int, total: int = 100) -> Progress:
    return Progress(stage=Stage.STEPPING, completed=completed, total=total, units_per_second=2.0, time_left_s=None)


def test_stages_steps_and_checkpoints_are_told_and_steps_not_too_often() -> None:
    told: list[object] = []
    now = [0.0]
    account = Account(told.append, lambda: now[0])
    account.note(StageStarted(stage=Stage.ENCODING))
    now[0] = 3.0
    account.note(StageStarted(stage=Stage.STEPPING))
    # Resumed: the first forty are another worker's.
    account.note(progress(40))
    now[0] = 4.0
    account.note(progress(42))
    account.note(CheckpointSaved(step=42))
    now[0] = 5.5
    account.note(progress(45))
    account.note(progress(100))
    account.close()
    assert told == [
        {"stage": "encoding", "seconds": 3.0},
        {"steps": 0, "per_second": 2.0},
        {"checkpoint": 42},
        {"steps": 5, "per_second": 2.0},
        {"steps": 55, "per_second": 2.0},
        {"stage": "stepping", "seconds": 2.5},
    ]


def test_a_service_that_reads_nothing_holds_up_no_worker() -> None:
    read, write = os.pipe()
    size, count = 1_000, 1_000
    with os.fdopen(read, "rb", buffering=0) as service, os.fdopen(write, "w") as answers:
        pipe = Pipe(answers)

        def tell() -> None:
            for _ in range(count):
                pipe.tell({"filler": "x" * size})

        telling = threading.Thread(target=tell, daemon=True)
        telling.start()
        telling.join(PATIENCE_S)
        is_held_up = telling.is_alive()
        lines = service.read(size * count).splitlines()
    assert not is_held_up
    assert 1 < len(lines) < count
    assert all(json.loads(line)["observed"] for line in lines)
