"""The table of a training's life, walked pair by pair."""

import itertools

import pytest

from trainer_service.lifecycle import MOVES, STATE_OF_STAGE, ImpossibleMove, Stage, State, move

FINAL = {State.SUCCEEDED, State.FAILED, State.CANCELLED}


@pytest.mark.parametrize(("here", "there"), list(itertools.product(State, State)))
def test_a_move_is_allowed_exactly_when_the_table_names_it(here: State, there: State) -> None:
    if there in MOVES[here]:
        assert move(here, there) is there
    else:
        with pytest.raises(ImpossibleMove):
            move(here, there)


def test_only_the_three_ends_are_final() -> None:
    assert {state for state in State if state.is_final} == FINAL


def test_every_state_that_is_not_final_can_fail_and_can_be_cancelled() -> None:
    for state in set(State) - FINAL:
        assert {State.FAILED, State.CANCELLED} <= MOVES[state]


def test_success_comes_only_after_publishing() -> None:
    assert [state for state in State if State.SUCCEEDED in MOVES[state]] == [State.PUBLISHING]


def test_stages_go_through_the_states_in_their_order() -> None:
    states = [STATE_OF_STAGE[stage] for stage in Stage]
    for earlier, later in itertools.pairwise(states):
        assert earlier is later or later in MOVES[earlier]
