"""Every check of a store fails when the store breaks what it checks, and only then; silence fails nothing."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from service_kit.memory_store import MemoryStore
from service_kit.store import ObjectStore, StoreForbidden, StoreUnavailable
from service_kit.store_bench import Effort
from service_kit.store_checks import CHECKS
from service_kit.store_verification import QUICK, Outcome, verify
from tests.unit.service_kit.lying_store import LyingStore, UnansweringStore

_WHOLE = Effort(writers=4, rounds=3, whole=True)
_HEAVY = {"large-object", "long-list"}
FAILING = {
    "create overwrites": {"create-once", "create-race"},
    "create is not atomic": {"create-race"},
    "replace overwrites": {"replace-stale", "replace-race"},
    "replace creates": {"replace-missing"},
    "replace is not atomic": {"replace-race"},
    "replace forgets": {"counter"},
    "reads give other ETags": {"etags"},
    "reads are stale": {"read-after-write"},
    "reads find the deleted": {"read-after-write"},
    "lists miss the newest": {"list-after-write", "list-order"},
    "lists show the deleted": {"list-after-write"},
    "lists are in no order": {"list-order", "long-list"},
    "lists begin at the first": {"list-order"},
    "lists end with a page": {"long-list"},
    "ranges begin at 0": {"ranges"},
    "delete needs an object": {"delete-twice"},
    "only the first part is kept": {"large-object"},
}


def outcomes_of(store: ObjectStore, effort: Effort = _WHOLE, run: str = "run") -> list[Outcome]:
    return list(verify(store, store, run, effort))


def with_verdict(outcomes: list[Outcome], verdict: str) -> set[str]:
    return {outcome.check for outcome in outcomes if outcome.verdict == verdict}


@pytest.mark.parametrize("lie", FAILING)
def test_a_check_fails_exactly_when_its_promise_is_broken(lie: str) -> None:
    outcomes = outcomes_of(LyingStore(lie))
    assert with_verdict(outcomes, "failed") == FAILING[lie]
    assert len(with_verdict(outcomes, "passed")) == len(CHECKS) - len(FAILING[lie])


def test_every_check_has_a_lie_that_it_finds() -> None:
    assert set.union(*FAILING.values()) == {check.name for check in CHECKS}


@pytest.mark.parametrize("lie", [lie for lie, failing in FAILING.items() if failing - _HEAVY and "atomic" not in lie])
def test_the_quick_run_finds_every_lie_that_is_told_always(lie: str) -> None:
    assert with_verdict(outcomes_of(LyingStore(lie), QUICK), "failed") == FAILING[lie] - _HEAVY


def test_a_store_that_keeps_its_promises_passes_and_is_left_empty() -> None:
    store = LyingStore()
    assert with_verdict(outcomes_of(store), "passed") == {check.name for check in CHECKS}
    assert list(store.keys("")) == []


def test_what_others_have_in_the_bucket_is_left_alone() -> None:
    store = MemoryStore()
    store.put("projects/default/datasets/mia/dataset.json", b"theirs")
    store.put("verify/another/once", b"of another run")
    outcomes_of(store)
    assert list(store.keys("")) == ["projects/default/datasets/mia/dataset.json", "verify/another/once"]


def test_nothing_is_left_behind_by_a_store_that_does_not_list_what_it_holds() -> None:
    store = LyingStore("lists miss the newest")
    outcomes_of(store)
    store.lie = ""
    assert list(store.keys("")) == []


def test_nothing_is_left_behind_when_the_reader_goes_away() -> None:
    store = MemoryStore()
    with contextlib.closing(verify(store, store, "run", QUICK)) as outcomes:
        next(outcomes)
        assert list(store.keys("")) != []
    assert list(store.keys("")) == []


@pytest.mark.parametrize("where", ["stale", "creators", "order/b"])
def test_nothing_is_left_behind_after_an_interrupt_in_a_check(where: str) -> None:
    store = UnansweringStore(where, KeyboardInterrupt(), times=1)
    with pytest.raises(KeyboardInterrupt):
        outcomes_of(store, QUICK)
    assert list(store.keys("")) == []


def test_a_store_that_is_away_fails_nothing() -> None:
    store = UnansweringStore("", StoreUnavailable("away"), times=10_000)
    outcomes = outcomes_of(store, QUICK)
    assert with_verdict(outcomes, "failed") == set()
    assert {"create-once", "create-race", "counter"} <= with_verdict(outcomes, "unanswered")


def test_a_race_with_a_missing_answer_is_neither_won_nor_lost() -> None:
    outcomes = outcomes_of(UnansweringStore("creators", StoreUnavailable("away"), times=1), QUICK)
    assert with_verdict(outcomes, "unanswered") == {"create-race"}
    assert with_verdict(outcomes, "failed") == set()


def test_a_store_that_forbids_has_failed() -> None:
    outcomes = outcomes_of(UnansweringStore("once", StoreForbidden("AccessDenied"), times=1), QUICK)
    assert [(outcome.check, outcome.seen) for outcome in outcomes if outcome.verdict == "failed"] == [
        ("create-once", "StoreForbidden: AccessDenied")
    ]


def test_runs_at_one_time_do_not_disturb_each_other() -> None:
    store = MemoryStore()
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda number: outcomes_of(store, QUICK, f"run-{number}"), range(4)))
    assert all(outcome.verdict == "passed" for outcomes in runs for outcome in outcomes)
    assert list(store.keys("")) == []
