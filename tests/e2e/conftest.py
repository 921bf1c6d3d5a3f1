"""One local stack, as `personae up` starts it, for every test of this folder; each uses names of its own."""

from collections.abc import Iterator

import pytest

import personae
from personae.cli import local_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local_stack.Running]:
    """A real S3 server, trainer and inference service on free ports."""
    folder = tmp_path_factory.mktemp("stack")
    with local_stack.running(folder / "data", folder / "logs", local_stack.Addresses(), {}) as stack:
        yield stack


@pytest.fixture(scope="session")
def client(stack: local_stack.Running) -> Iterator[personae.Client]:
    """A client of both services."""
    with personae.Client(stack.trainer, stack.inference) as client:
        yield client
