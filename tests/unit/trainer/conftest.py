"""Fixtures of the trainer's unit tests."""

import pytest

from tests.unit.trainer.import_calls import ImportService
from tests.unit.trainer.trainer_fakes import Trainer


@pytest.fixture
def trainer() -> Trainer:
    return Trainer()


@pytest.fixture
def service() -> ImportService:
    return ImportService()
