"""One pair of services for the whole folder."""

from collections.abc import Iterator

import pytest

from tests.bad_inputs.world import World, running_world
from tests.real_store import RealStore


@pytest.fixture(scope="package")
def world(real_store: RealStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(real_store, tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture(autouse=True)
def goes_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each bad input both services are SERVING, and the next good request succeeds."""
    yield
    if "world" in request.fixturenames:
        request.getfixturevalue("world").goes_on()
