"""What the tests of this folder share: a client of the one local stack."""

from collections.abc import Iterator

import pytest

import personae
from personae.cli import local_stack


@pytest.fixture(scope="session")
def client(stack: local_stack.Running) -> Iterator[personae.Client]:
    """A client of both services."""
    with personae.Client(stack.trainer, stack.inference) as client:
        yield client
