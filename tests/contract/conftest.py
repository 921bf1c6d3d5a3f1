"""The object stores that the contract suite runs over; every test has a key prefix of its own."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from service_kit.memory_store import MemoryStore
from service_kit.store import ObjectStore
from tests.real_store import RealStore, running_store

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def real_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStore]:
    folder: Path = tmp_path_factory.mktemp("store")
    with running_store(folder) as running:
        yield running


@pytest.fixture(params=["memory", "real"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    if request.param == "memory":
        return MemoryStore()
    running: RealStore = request.getfixturevalue("real_store")
    return running.store


@pytest.fixture
def prefix() -> str:
    """Keys below it belong to one test."""
    return f"test-{next(_numbers)}/"
