"""Fixtures that more than one folder of tests uses."""

from collections.abc import Iterator

import pytest

from tests.real_store import RealStore, running_store


@pytest.fixture(scope="session")
def real_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStore]:
    """One real S3 server for the whole run; every test uses keys of its own."""
    with running_store(tmp_path_factory.mktemp("store")) as running:
        yield running
