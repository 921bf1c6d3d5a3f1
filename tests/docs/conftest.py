"""Pages that run: each once a session, in a folder of its own, against the one local stack."""

from collections.abc import Callable

import pytest

from personae.cli import local_stack
from tests.docs.blocks import blocks, may_run
from tests.docs.own_files import write_own_files
from tests.docs.sandbox import sandbox

FIRST = "docs/train.md"
"""Makes the adapter `mia`, which other pages go on with."""


@pytest.fixture(scope="session")
def run_page(stack: local_stack.Running, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """Runs a page's blocks, the first page's before them; a page that failed fails again."""
    outcomes: dict[str, BaseException | None] = {}

    def attempt(page: str) -> BaseException | None:
        folder = tmp_path_factory.mktemp("page")
        write_own_files(folder)
        try:
            with sandbox(folder, stack) as place:
                for block in blocks(page):
                    if may_run(block):
                        place.run(block)
        except (Exception, SystemExit) as error:
            return error
        return None

    def run(page: str) -> None:
        for wanted in (FIRST, page):
            if wanted not in outcomes:
                outcomes[wanted] = attempt(wanted)
            if (error := outcomes[wanted]) is not None:
                raise AssertionError(f"{wanted} does not run") from error

    return run
