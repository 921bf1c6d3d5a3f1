"""No row of the table of bad inputs is left out: each is asked here, or by a test of another folder that is named."""

from tests.bad_inputs.table import CASES
from tests.named_tests import exists, references

_HERE = "`tests/bad_inputs/test_bad_states.py::"
# Rows that take more than one call, or services that are not as in this folder, or a machine that is not.
ELSEWHERE = {
    **dict.fromkeys(
        (7, 8, 9, 10, 12, 13),
        f"{_HERE}test_each_picture_that_cannot_be_used_is_reported_by_name_and_the_others_are_taken`",
    ),
    11: f"{_HERE}test_pictures_in_other_modes_are_taken_and_converted`",
    14: f"{_HERE}test_a_picture_that_comes_twice_or_nearly_is_taken_once`",
    19: f"{_HERE}test_the_same_request_id_with_the_same_body_is_the_same_training`",
    24: f"{_HERE}test_a_cancelled_training_may_be_cancelled_again_and_a_full_project_waits`",
    26: f"{_HERE}test_a_full_queue_says_when_to_come_back_also_to_grpc_itself`",
    34: f"{_HERE}test_an_adapter_that_is_deleted_ends_its_generation_and_no_other`",
    39: "`tests/unit/service_kit/test_error_statuses.py::test_every_error_has_its_status_in_every_kind_of_call`",
    35: f"{_HERE}test_a_deadline_that_is_past_or_hardly_begun_is_said_to_be_exceeded`",
    40: "`tests/unit/inference/test_step_loop.py::test_out_of_memory_halves_the_batch_and_every_image_is_finished`",
    41: "`tests/unit/inference/test_safety_checker.py::test_a_refused_image_is_filtered_and_the_others_come`",
    42: f"{_HERE}test_what_a_caller_abandons_is_not_carried_out`",
    43: f"{_HERE}test_fifty_equal_submits_at_once_are_one_training`",
    44: "`tests/faults/test_switched_off.py::test_a_mechanism_keeps_harm_away`",
}


def test_each_of_the_forty_four_rows_is_asked() -> None:
    assert {case.row for case in CASES} | ELSEWHERE.keys() == set(range(1, 45))


def test_the_tests_of_other_places_exist() -> None:
    named = [reference for text in ELSEWHERE.values() for reference in references(text)]
    assert len(named) == len(ELSEWHERE)
    assert [reference for reference in named if not exists(*reference)] == []
