"""The threads beside the step loop: what waits is taken together, and nobody fails for another."""

import threading
from collections.abc import Sequence

import pytest

from inference_service.denoising.batch_thread import BatchThread, in_halves

PATIENCE_S = 30.0


def test_a_batch_that_fails_is_halved_until_those_that_fail_are_alone() -> None:
    done: list[int] = []
    failed: list[list[int]] = []

    def attempt(batch: Sequence[int]) -> None:
        if 5 in batch:
            raise ValueError("five")
        done.extend(batch)

    in_halves(range(8), attempt, lambda batch, error: failed.append(list(batch)))
    assert sorted(done) == [0, 1, 2, 3, 4, 6, 7]
    assert failed == [list(range(8)), [4, 5, 6, 7], [4, 5], [5]]


def test_what_waits_is_taken_together_by_group_and_no_more_than_fit() -> None:
    gate, batches = threading.Event(), []

    def attempt(batch: Sequence[int]) -> None:
        gate.wait(PATIENCE_S)
        batches.append(list(batch))

    thread = BatchThread("test", 3, lambda item: item % 2, attempt, lambda batch, error: None)
    thread.put(0)
    for item in range(1, 10):
        thread.put(item)
    gate.set()
    thread.close()
    taken = [item for batch in batches for item in batch]
    assert sorted(taken) == list(range(10))
    assert all(len(batch) <= 3 and len({item % 2 for item in batch}) == 1 for batch in batches)
    # The first may have been taken before the others came.
    assert len(batches) <= 5


def test_a_failure_to_tell_of_a_failure_stops_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def attempt(batch: Sequence[str]) -> None:
        if "bad" in batch:
            raise ValueError("bad")
        done.extend(batch)

    def failed(batch: Sequence[str], error: Exception) -> None:
        raise RuntimeError("nobody is there to be told")

    thread = BatchThread("test", 1, lambda item: None, attempt, failed)
    for item in ("bad", "good"):
        thread.put(item)
    thread.close()
    assert done == ["good"]
    assert "so did telling of it" in caplog.text
