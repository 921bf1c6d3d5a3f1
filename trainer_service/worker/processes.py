"""The processes that carry out one training together: how they find each other, and what they say to each other.

Its one rule: they wait for each other in `exchange` and nowhere else, so that whoever waits is told when process 0
leaves and notices when another process has died. The only other message, `added_up`, follows an exchange at once.

Words travel over gloo between the CPUs, pickled, also where gradients travel over NCCL: they make no GPU wait.
"""

import logging
import os
import threading
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env, reduce
from torch import Tensor, distributed

from trainer_service.worker.exit_code import ExitCode

_logger = logging.getLogger(__name__)

# The others wait while process 0 waits for a lease, generates class pictures, draws samples and evaluates: hours. Yet
# nothing hangs that long: a connection that closes ends a wait at once, and the watchdog ends a process 0 that hangs.
_PATIENCE = timedelta(days=1)
# For a process that loads its base model, or hangs, while process 0 has nothing left to do.
_LEAVE_WITHIN_S = 60.0


class ProcessLost(Exception):
    """Another process of this training died; what was not checkpointed is lost."""


class Dismissed(Exception):
    """Process 0 has ended its work on the training, and with this exit code."""

    def __init__(self, exit_code: ExitCode) -> None:
        super().__init__(f"process 0 has ended with {exit_code.name}")
        self.exit_code = exit_code


def join() -> PartialState:
    """Find the other processes, where a launcher says that there are some; on which device this one computes."""
    on_cpu = not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    if "LOCAL_RANK" not in os.environ:
        return PartialState(cpu=on_cpu)
    return PartialState(cpu=on_cpu, backend="gloo" if on_cpu else "cpu:gloo,cuda:nccl", timeout=_PATIENCE)


def exchange(word: object) -> list[Any]:
    """Give every process this one's word; all words, by process. Every process must call it equally often.

    Raises Dismissed in the others where process 0 dismisses them, ProcessLost.
    """
    if not distributed.is_initialized():
        return [word]
    words = _gathered(word)
    if isinstance(words[0], ExitCode):
        raise Dismissed(words[0])
    return words


def added_up(values: Tensor) -> Tensor:
    """The sum over all processes, bit-equal in each. Raises ProcessLost."""
    try:
        return reduce(values, "sum")
    # All that torch.distributed says of a connection that closed.
    except RuntimeError as error:
        raise ProcessLost(str(error)) from error


def dismiss(exit_code: ExitCode) -> None:
    """As process 0, end the work of all processes: wherever they wait, they leave with this exit code."""
    if not distributed.is_initialized():
        return
    late = threading.Timer(_LEAVE_WITHIN_S, os._exit, [exit_code])
    late.daemon = True
    late.start()
    try:
        _gathered(exit_code)
    except ProcessLost as error:
        _logger.warning("not all processes heard that this one leaves: %s", error)
    distributed.destroy_process_group()
    late.cancel()


def _gathered(word: object) -> list[Any]:
    try:
        words: list[Any] = gather_object([word])
    except RuntimeError as error:
        raise ProcessLost(str(error)) from error
    return words
