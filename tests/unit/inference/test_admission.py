"""The bounds on what waits: who is admitted, who is refused and until when, whose deadline cannot be met."""

from contextlib import ExitStack, suppress

import pytest

from inference_service.admission import Admission, Demand, Limits
from service_kit.errors import DeadlineTooShort, TryLater
from tests.unit.inference.fake_serving import Clock, measure_speed

LIMITS = Limits(cost=1_000, requests=8, project_share=0.5)


def _measured(clock: Clock, passes_per_s: float = 10.0) -> Admission:
    """An admission under which so much has been done in a second."""
    admission = Admission(LIMITS, clock)
    measure_speed(admission, clock, passes_per_s)
    return admission


def _refusal(admission: Admission, demand: Demand, time_left_s: float | None = None) -> TryLater | DeadlineTooShort:
    before = (admission.cost_waiting, admission.images_waiting)
    with pytest.raises((TryLater, DeadlineTooShort)) as refused, admission.admit(demand, time_left_s):
        pass
    assert (admission.cost_waiting, admission.images_waiting) == before
    return refused.value


def test_cost_is_freed_step_by_step_and_image_by_image() -> None:
    admission = Admission(LIMITS, Clock())
    with admission.admit(Demand("a", images=3, image_cost=10), None) as ticket:
        assert (admission.cost_waiting, admission.images_waiting) == (30, 3)
        # Decoding counts as a fifth step.
        ticket.progress([0, 1], completed_steps=2, total_steps=4)
        assert (admission.cost_waiting, admission.images_waiting) == (22, 3)
        ticket.progress([0, 1], completed_steps=2, total_steps=4)
        ticket.finish(1)
        assert (admission.cost_waiting, admission.images_waiting) == (16, 2)
        with admission.admit(Demand("a", images=1, image_cost=10), None) as second:
            assert second.images_ahead == 2
    assert (admission.cost_waiting, admission.images_waiting) == (0, 0)


def test_what_a_request_holds_is_freed_when_it_fails() -> None:
    admission = Admission(LIMITS, Clock())
    with (
        suppress(RuntimeError),
        admission.attend("a"),
        admission.admit(Demand("a", images=3, image_cost=10), None) as ticket,
    ):
        ticket.finish(2)
        ticket.progress([0], completed_steps=1, total_steps=1)
        raise RuntimeError
    assert (admission.cost_waiting, admission.images_waiting, admission.requests_open) == (0, 0, 0)


def test_a_full_queue_refuses_a_request_as_a_whole() -> None:
    admission = Admission(LIMITS, Clock())
    with admission.admit(Demand("a", 1, 500), None), admission.admit(Demand("b", 1, 450), None):
        assert _refusal(admission, Demand("c", images=3, image_cost=20)).reason == "QUEUE_FULL"
        with admission.admit(Demand("c", images=2, image_cost=20), None):
            assert admission.cost_waiting == 990


def test_no_project_fills_the_queue_alone() -> None:
    admission = Admission(LIMITS, Clock())
    with admission.admit(Demand("a", 1, 400), None):
        assert _refusal(admission, Demand("a", 1, 101)).reason == "PROJECT_QUEUE_FULL"
        with admission.admit(Demand("a", 1, 100), None), admission.admit(Demand("b", 1, 500), None):
            assert admission.cost_waiting == LIMITS.cost


def test_the_number_of_open_requests_is_bounded_for_all_and_for_each_project() -> None:
    admission = Admission(LIMITS, Clock())
    with ExitStack() as held:
        for project in "aaaa":
            held.enter_context(admission.attend(project))
        with pytest.raises(TryLater) as refused, admission.attend("a"):
            pass
        assert refused.value.reason == "PROJECT_QUEUE_FULL"
        for project in "bbbc":
            held.enter_context(admission.attend(project))
        with pytest.raises(TryLater) as refused, admission.attend("d"):
            pass
        assert refused.value.reason == "QUEUE_FULL"
        assert admission.requests_open == 8
    assert admission.requests_open == 0
    with admission.attend("a"):
        assert admission.requests_open == 1


def test_the_time_to_try_again_is_when_there_will_be_room_at_the_measured_speed() -> None:
    admission = _measured(Clock(), passes_per_s=10.0)
    with admission.admit(Demand("a", 1, 400), None), admission.admit(Demand("b", 1, 500), None):
        # 50 passes too many, of all.
        assert _refusal(admission, Demand("c", 1, 150)).retry_after_s == pytest.approx(5.0)
        assert _refusal(admission, Demand("c", 1, 101)).retry_after_s == 0.5
        assert _refusal(admission, Demand("c", 10, 150)).retry_after_s == 60.0
    with admission.admit(Demand("a", 1, 400), None), admission.admit(Demand("b", 1, 30), None):
        # 50 too many of a's, while b gets its share: as much, and a quarter to be sure.
        assert _refusal(admission, Demand("a", 1, 150)).retry_after_s == pytest.approx(11.25)


def test_the_time_to_try_again_for_want_of_a_place_is_that_of_a_mean_request() -> None:
    admission = _measured(Clock(), passes_per_s=10.0)
    with ExitStack() as held:
        for project in "aabbccdd":
            held.enter_context(admission.attend(project))
            held.enter_context(admission.admit(Demand(project, 1, 60), None))
        with pytest.raises(TryLater) as refused, admission.attend("e"):
            pass
        assert refused.value.retry_after_s == pytest.approx(6.0)


def test_a_deadline_shorter_than_the_work_itself_is_refused_and_waiting_would_not_help() -> None:
    admission = _measured(Clock(), passes_per_s=10.0)
    assert _refusal(admission, Demand("a", 5, 10), time_left_s=4.9).retry_after_s is None
    with admission.admit(Demand("a", 5, 10), 5.1):
        pass


def test_a_deadline_shorter_than_the_queue_is_refused_with_the_time_when_it_would_do() -> None:
    admission = _measured(Clock(), passes_per_s=10.0)
    with admission.admit(Demand("a", 1, 200), None):
        refusal = _refusal(admission, Demand("a", 1, 50), time_left_s=20.0)
        assert isinstance(refusal, DeadlineTooShort)
        assert refusal.retry_after_s == pytest.approx(5.0)
        with admission.admit(Demand("a", 1, 50), 25.1):
            pass


def test_a_deadline_is_held_against_a_fair_share_of_the_engine() -> None:
    admission = _measured(Clock(), passes_per_s=10.0)
    with admission.admit(Demand("flood", 1, 450), None), admission.admit(Demand("small", 1, 20), None):
        # 50 of its own, and for each of the others as much and a quarter more; not the flood's 450.
        assert isinstance(_refusal(admission, Demand("b", 1, 50), time_left_s=17.4), DeadlineTooShort)
        with admission.admit(Demand("b", 1, 50), 17.6):
            pass


def test_a_long_request_is_told_to_come_back_when_the_short_one_before_it_is_done() -> None:
    admission = _measured(Clock(), passes_per_s=10.0)
    with admission.admit(Demand("short", 1, 10), None):
        assert _refusal(admission, Demand("long", 1, 450), time_left_s=60.0).retry_after_s == pytest.approx(1.0)


def test_without_a_measured_speed_only_a_deadline_that_has_passed_is_refused() -> None:
    admission = Admission(LIMITS, Clock())
    with admission.admit(Demand("a", 1, 500), 0.001):
        pass
    for time_left_s in (0.0, -1.0):
        refusal = _refusal(admission, Demand("a", 1, 1), time_left_s)
        assert isinstance(refusal, DeadlineTooShort)
        assert refusal.retry_after_s is None


def test_a_stall_is_forgotten_so_that_it_cannot_make_the_service_refuse_for_ever() -> None:
    clock = Clock()
    admission = _measured(clock, passes_per_s=10.0)
    with admission.admit(Demand("a", 1, 20), None) as ticket:
        ticket.progress([0], 0, 1)
        clock.now_s += 600.0
        ticket.finish(0)
    assert isinstance(_refusal(admission, Demand("a", 1, 50), time_left_s=20.0), DeadlineTooShort)
    clock.now_s += 600.0
    with admission.admit(Demand("a", 1, 50), 20.0):
        pass


def test_considering_a_demand_holds_nothing() -> None:
    admission = Admission(LIMITS, Clock())
    for _ in range(100):
        admission.consider(Demand("a", 1, 500), None)
    assert admission.cost_waiting == 0
