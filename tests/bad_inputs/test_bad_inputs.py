"""Every row of the table of bad inputs over the wire, to real services: status, reason, details; all goes on."""

import pytest

from tests.bad_inputs.case import Case, check
from tests.bad_inputs.table import CASES
from tests.bad_inputs.world import World


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_input_gets_its_status_its_reason_and_every_detail(world: World, case: Case) -> None:
    check(case, world)
