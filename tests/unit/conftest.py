"""What unit tests of several packages need."""

from pathlib import Path

import pytest

from base_models.catalog import BaseModelEntry, describe


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> BaseModelEntry:
    """A small random SDXL."""
    # torch takes seconds to import, and most unit tests do without it.
    from tests.benchmarks.random_base_model import write_tiny_sdxl

    folder: Path = tmp_path_factory.mktemp("sdxl")
    write_tiny_sdxl(folder)
    return describe("sdxl", folder)
