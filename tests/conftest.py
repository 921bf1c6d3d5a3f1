"""Fixtures that more than one folder of tests uses."""

from collections.abc import Iterator

import pytest

from personae.cli import local_stack
from tests.real_store import RealStore, running_store


@pytest.fixture(scope="session")
def real_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStore]:
    """One real S3 server for the whole run; every test uses keys of its own."""
    with running_store(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local_stack.Running]:
    """A real S3 server, trainer and inference service on free ports, as `personae up` starts them; each test uses names
    of its own."""
    folder = tmp_path_factory.mktemp("stack")
    with local_stack.running(folder / "data", folder / "logs", local_stack.Addresses(), {}) as stack:
        yield stack
