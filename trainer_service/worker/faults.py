"""Why a training can fail for good, and how its failure is told: the one table of reasons."""

from base_models.adapters.adapter_file import AdapterInvalid
from trainer_service.events import Failure
from trainer_service.worker.checkpoints import DamagedCheckpoint
from trainer_service.worker.gradients import OutOfMemory
from trainer_service.worker.proof import AdapterNotReproduced, AdapterWithoutEffect
from trainer_service.worker.training_loop import NonFiniteLoss
from trainer_service.worker.verified_reads import DamagedObject


class TrainingFault(Exception):
    """The training cannot succeed; `reason` and the text go into its failure."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def failure_of(error: Exception) -> Failure:
    """What callers are told of an error that ended a training. Unknown errors leak no text."""
    match error:
        case TrainingFault():
            return Failure(reason=error.reason, message=str(error))
        case AdapterWithoutEffect():
            return Failure(
                reason="ADAPTER_WITHOUT_EFFECT", message=f"{error}; train for more steps or at a higher rate"
            )
        case AdapterInvalid() | AdapterNotReproduced():
            return Failure(reason="ADAPTER_NOT_PROVEN", message=str(error))
        case NonFiniteLoss():
            return Failure(
                reason="NON_FINITE_LOSS",
                message=f"{error}, with half the rate tried three times; lower the learning rate. The last checkpoint "
                "is kept",
            )
        case OutOfMemory():
            return Failure(
                reason="OUT_OF_MEMORY",
                message="one picture at a time with activations computed twice does not fit; lower resolution or rank",
            )
        case DamagedCheckpoint():
            return Failure(reason="CHECKPOINT_DAMAGED", message=f"{error}; start the training again")
        case DamagedObject():
            # A picture or a mask: checkpoints say so themselves.
            return Failure(reason="DATASET_DAMAGED", message=f"{error}; upload the pictures to a new dataset")
    return Failure(reason="INTERNAL", message="an unexpected error; the worker's log has it")
