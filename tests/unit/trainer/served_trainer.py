"""The rpcs of a trainer service over the parts of a test."""

import asyncio

from tests.unit.trainer.trainer_fakes import Trainer
from trainer_service.adapters import Adapters
from trainer_service.deletion import Deletion
from trainer_service.dispatcher import Dispatcher
from trainer_service.exporting import Exporting
from trainer_service.importing import Importing
from trainer_service.servicer import TrainerServicer
from trainer_service.sweeping import Sweeping
from trainer_service.trainings import Trainings
from trainer_service.watching import Watching


def trainer_servicer(trainer: Trainer, trainings: Trainings | None = None) -> TrainerServicer:
    """On the trainer's bucket. Nobody carries out its trainings. trainings: instead of the trainer's."""
    adapters, trainings = Adapters(trainer.store), trainings or trainer.trainings
    return TrainerServicer(
        trainer.datasets,
        trainings,
        adapters,
        Exporting(trainer.store, adapters, trainer.base_models),
        Importing(trainer.store, trainer.base_models, trainer.clock),
        Watching(trainer.store, trainings, asyncio.Event()),
        Dispatcher(trainer.store, [], trainer.clock),
        Deletion(trainer.store, trainer.clock),
        Sweeping(trainer.store),
    )
