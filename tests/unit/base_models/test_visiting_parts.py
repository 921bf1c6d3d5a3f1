"""Parts that visit the device: who is there when, from several threads too, and what becomes of who leaves."""

import threading
from collections.abc import Callable

import pytest
import torch
from torch import nn

from base_models.weights.visiting_parts import VisitingParts

CPU = torch.device("cpu")
X_BI = torch.ones(2, 4)


def linear(seed: int) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(4, 4).requires_grad_(False)


@pytest.fixture
def parts() -> dict[str, nn.Linear]:
    return {"first": linear(0), "second": linear(1)}


def test_who_comes_has_the_other_leave_and_says_what_it_always_says(parts: dict[str, nn.Linear]) -> None:
    wanted = {name: part(X_BI) for name, part in parts.items()}
    home = {name: part.weight.data_ptr() for name, part in parts.items()}
    visiting = VisitingParts(parts, CPU, one_at_a_time=True)
    assert visiting.present == set()
    for name in ("first", "second", "second", "first"):
        with torch.inference_mode():
            assert torch.equal(parts[name](X_BI), wanted[name])
        assert visiting.present == {name}
        assert [part.weight.data_ptr() != home[other] for other, part in parts.items()] == [
            other == name for other in parts
        ]
    # Weights that came in inference mode are of use outside of it.
    trained = X_BI.clone().requires_grad_()
    parts["first"](trained).sum().backward()
    assert trained.grad is not None
    visiting.make_room()
    assert {name: part.weight.data_ptr() for name, part in parts.items()} == home


def test_on_request_all_stay_until_they_are_asked_to_leave(parts: dict[str, nn.Linear]) -> None:
    visiting = VisitingParts(parts, CPU, one_at_a_time=False)
    for part in parts.values():
        part(X_BI)
    assert visiting.present == {"first", "second"}
    visiting.make_room()
    assert visiting.present == set()


def test_what_is_used_does_not_leave_and_one_thread_may_use_two(parts: dict[str, nn.Linear]) -> None:
    visiting = VisitingParts(parts, CPU, one_at_a_time=True)
    with visiting.used("first", "unknown"):
        parts["second"](X_BI)
        visiting.make_room()
        assert visiting.present == {"first"}


def test_a_part_that_another_thread_needs_waits_for_the_pass_that_runs(parts: dict[str, nn.Linear]) -> None:
    visiting = VisitingParts(parts, CPU, one_at_a_time=True)
    seen, done = [], threading.Event()

    def other() -> None:
        parts["second"](X_BI)
        done.set()

    with visiting.used("first"):
        thread = threading.Thread(target=other)
        thread.start()
        seen.append(done.wait(0.05))
        seen.append(visiting.present == {"first"})
    thread.join()
    assert seen == [False, True]
    assert visiting.present == {"second"}


def test_an_error_in_a_pass_leaves_the_part_to_others(parts: dict[str, nn.Linear]) -> None:
    visiting = VisitingParts(parts, CPU, one_at_a_time=True)
    with pytest.raises(TypeError):
        parts["first"]("no tensor")
    thread = threading.Thread(target=parts["second"], args=(X_BI,))
    thread.start()
    thread.join()
    assert visiting.present == {"second"}


def test_what_does_not_fit_leaves_nothing_behind(parts: dict[str, nn.Linear]) -> None:
    # No weights can be copied out of a device without any.
    parts["second"].bias = nn.Parameter(torch.zeros(4, device="meta"), requires_grad=False)
    visiting = VisitingParts(parts, CPU, one_at_a_time=True)
    home = parts["second"].weight.data_ptr()
    with pytest.raises(NotImplementedError):
        parts["second"](X_BI)
    assert (visiting.present, parts["second"].weight.data_ptr()) == (set(), home)
    parts["first"](X_BI)


def test_an_adapter_that_a_part_wears_comes_and_goes_with_it(parts: dict[str, nn.Linear]) -> None:
    visiting = VisitingParts(parts, CPU, one_at_a_time=True)
    part = parts["first"]
    part.register_parameter("extra", nn.Parameter(torch.full((4,), 2.0)))
    changes: list[Callable[[], object]] = [lambda: part(X_BI), visiting.make_room]
    for change in changes:
        change()
        assert part.extra.tolist() == [2.0] * 4
