"""What the other processes of a training do: compute their share of every step, in step with process 0.

Its one rule: they write nothing. Process 0 alone holds the lease, reports, checkpoints, draws and publishes; a process
that follows leaves when process 0 says so, with its exit code, or when another process has died.
"""

import logging
import signal

from torch import distributed

from trainer_service.training_record import TrainingRecord
from trainer_service.worker.autocast import accelerator_for, config_on
from trainer_service.worker.checkpoints import CheckpointPointer, Checkpoints
from trainer_service.worker.exit_code import ExitCode
from trainer_service.worker.gradients import OutOfMemory
from trainer_service.worker.preparing import prepare
from trainer_service.worker.processes import Dismissed, exchange
from trainer_service.worker.run import Workbench
from trainer_service.worker.training_loop import NonFiniteLoss, train

_logger = logging.getLogger(__name__)


def follow(bench: Workbench) -> ExitCode:
    """Follow process 0 through a training until it leaves."""
    # A launcher stops all processes at once; but process 0 checkpoints first, and for that it needs the others.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        _follow(bench)
    except Dismissed as word:
        _logger.info("%s", word)
        distributed.destroy_process_group()
        return word.exit_code
    # Whatever it is, process 0 notices that this one is gone, and hands the training back.
    except Exception as error:
        _logger.error("no longer following", exc_info=error)
    return ExitCode.TRY_AGAIN


def _follow(bench: Workbench) -> None:
    """Raises Dismissed at the latest when process 0 is done."""
    record: TrainingRecord = exchange(None)[0]
    entry = bench.entry(record.base_model)
    base = bench.base(entry)
    # Once process 0 has prepared, the class pictures are in the bucket, and it knows which checkpoint it goes on from.
    pointer: CheckpointPointer | None = exchange(None)[0]
    examples = prepare(bench.store, record, entry, base, lambda done, total: None, lambda stage: None).examples
    resume = Checkpoints(bench.store, record.name, record.epoch).load(pointer)
    config = config_on(base, record.config)
    try:
        for _ in train(base, examples, config, accelerator_for(config, base.device), resume, lambda step: False):
            pass
    except (NonFiniteLoss, OutOfMemory) as error:
        # It is the same for process 0, who tells.
        _logger.error("%s", error)
    exchange(None)
    raise AssertionError("after the loop, process 0 says nothing but its exit code")
