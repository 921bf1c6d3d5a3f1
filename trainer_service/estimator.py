"""Estimates trainings from what the bucket and the base models' files say. Blocking."""

import logging
from collections.abc import Mapping

from base_models.catalog import BaseModelEntry
from base_models.network_sizes import read_network_sizes
from base_models.safetensors_header import NotSafetensors
from service_kit import schema
from service_kit.store import ObjectMissing, ObjectStore
from trainer_service.estimating import Estimate, Speed, basis_of, seconds_of
from trainer_service.memory_advice import Needs
from trainer_service.training_config import TrainingConfig
from trainer_service.training_memory import Device

_logger = logging.getLogger(__name__)


class Estimator:
    """What trainings will need."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def estimate(
        self,
        config: TrainingConfig,
        entry: BaseModelEntry,
        pictures: int,
        device: Device | None,
        by_preset: Mapping[str, TrainingConfig],
    ) -> Estimate:
        """Of a training on so many pictures.

        device: what workers here compute on; None: not known, and then that of the latest training. by_preset: what the
        request would have led to with each preset.
        """
        speed = self._speed(entry)
        needs = _needs(entry, pictures, device, speed)
        return Estimate(
            seconds_of(config, entry, speed),
            needs.bytes_of(config),
            basis_of(entry, speed),
            needs.advice(config, by_preset),
        )

    def memory(self, config: TrainingConfig, entry: BaseModelEntry, pictures: int) -> int:
        """The most bytes that it will hold at once, on whatever device; 0 where the base model's files cannot be read.

        Who asks goes on to other trainings, which one damaged folder shall not hold up.
        """
        try:
            return _needs(entry, pictures, None, self._speed(entry)).bytes_of(config)
        except (OSError, ValueError, NotSafetensors) as error:
            _logger.error("%s: what a training needs is not known: %s: %s", entry.name, type(error).__name__, error)
            return 0

    def _speed(self, entry: BaseModelEntry) -> Speed | None:
        try:
            return Speed.from_json(self._store.get(schema.training_speed(entry.name)).body)
        except ObjectMissing:
            return None


def _needs(entry: BaseModelEntry, pictures: int, device: Device | None, speed: Speed | None) -> Needs:
    sizes = read_network_sizes(entry)
    if speed is None:
        return Needs(entry, sizes, pictures, device)
    return Needs(entry, sizes, pictures, device or speed.device, speed.measured)
