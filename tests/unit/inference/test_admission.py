"""The bound on waiting images."""

from contextlib import suppress

import pytest

from inference_service.admission import Admission
from service_kit.errors import TryLater
from tests.unit.inference.fake_serving import Clock


def test_places_are_freed_image_by_image() -> None:
    admission = Admission(limit=4, clock=Clock())
    with admission.admit(3) as ticket:
        assert admission.waiting == 3
        ticket.finish_one()
        assert admission.waiting == 2
        with admission.admit(2) as second:
            assert second.images_ahead == 2
    assert admission.waiting == 0


def test_places_of_a_request_that_fails_are_freed() -> None:
    admission = Admission(limit=4, clock=Clock())
    with suppress(RuntimeError), admission.admit(3) as ticket:
        ticket.finish_one()
        raise RuntimeError
    assert admission.waiting == 0


def test_a_request_is_admitted_whole_or_not_at_all() -> None:
    admission = Admission(limit=4, clock=Clock())
    with admission.admit(3):
        with pytest.raises(TryLater), admission.admit(2):
            pass
        assert admission.waiting == 3


def test_the_time_to_try_again_follows_the_measured_speed() -> None:
    clock = Clock()
    admission = Admission(limit=8, clock=clock)
    clock.now_s = 100.0
    with admission.admit(4) as ticket:
        # Groups finish together: the mean is 5 s.
        clock.now_s = 120.0
        for _ in range(4):
            ticket.finish_one()
    clock.now_s = 500.0
    with admission.admit(8):
        with pytest.raises(TryLater) as refused, admission.admit(3):
            pass
        assert refused.value.retry_after_s == pytest.approx(15.0)
        with pytest.raises(TryLater) as refused, admission.admit(100):
            pass
        assert refused.value.retry_after_s == 60.0
