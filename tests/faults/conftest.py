"""One stack for the scenarios of a module."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.faults.stack import Stack
from tests.real_store import RealStore


@pytest.fixture(scope="module")
def stack(real_store: RealStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with ExitStack() as resources:
        yield Stack(real_store, tmp_path_factory.mktemp("faults"), resources)
