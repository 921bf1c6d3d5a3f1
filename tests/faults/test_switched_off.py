"""What each mechanism is for: the same course of events with it, when all is well, and without, when harm is found.

So that a scenario that no longer reaches its mechanism fails. Conditions are switched off by a proxy that strips them.
Fencing by epoch and holder, which is in no request, is switched off in `tests/unit/worker/test_fencing.py`.
"""

import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from service_kit import schema
from service_kit.minio_store import MinioStore
from service_kit.store import ObjectChanged, StoreError
from tests.faults.happenings import answer_lost, garbled
from tests.faults.in_process import Writers, now, writers
from tests.faults.invariants import violations_of
from tests.faults.requests_of_a_training import ADAPTER_MANIFEST, EVENTS, RECORD
from tests.faults.store_proxy import Rule, store_proxy
from tests.real_store import RealStore
from trainer_service.events import CheckpointSaved
from trainer_service.journal import JournalWriter
from trainer_service.training_record import LeaseLost
from trainer_service.training_store import TrainingStore
from trainer_service.worker import checkpoints as checkpoints_module
from trainer_service.worker.checkpoints import Checkpoints, DamagedCheckpoint
from trainer_service.worker.trainee import Weights
from trainer_service.worker.training_loop import Snapshot, Standing

pytestmark = pytest.mark.faults

OWN_FILE = r"/own\.safetensors$"
SwitchOff = Callable[[Writers, pytest.MonkeyPatch], None]


@pytest.fixture
def two(real_store: RealStore) -> Iterator[Writers]:
    with store_proxy(real_store.endpoint) as proxy, writers(real_store, proxy) as found:
        yield found


def a_late_manifest(two: Writers) -> list[str]:
    """The old holder has read its lease and sends the manifest; that arrives when another has published and ended."""
    old = two.taken("old")
    with two.under_way(ADAPTER_MANIFEST, threading.Thread(target=two.publish, args=(two.far, old, b"late"))):
        two.succeed(two.take(old, "new"))
        born = two.near.get(schema.adapter_manifest(old.adapter)).body
    changed = two.near.get(schema.adapter_manifest(old.adapter)).body != born
    return violations_of(two.near, old.name) + ["the manifest changed after its birth"] * changed


def a_late_event(two: Writers) -> list[str]:
    """The old holder's event arrives when another has written the whole rest of the log."""
    old = two.taken("old")
    writer = JournalWriter(two.far, old.name, old.epoch, now)

    def append() -> None:
        try:
            writer.append([CheckpointSaved(step=1)])
        except LeaseLost:
            return

    with two.under_way(EVENTS, threading.Thread(target=append)):
        two.succeed(two.take(old, "new"))
    return violations_of(two.near, old.name)


def two_equal_submits(two: Writers) -> list[str]:
    """The record of one is under way while the other's is written; both callers are told of a training."""
    request, told = two.request(), []
    first, second = two.trainer(two.far), two.trainer(two.near)
    second.clock.advance(1)
    submit = threading.Thread(target=lambda: told.append(first.trainings.create(request).record))
    with two.under_way(RECORD, submit):
        told.append(second.trainings.create(request).record)
    return ["two callers were told of different trainings"] * (told[0] != told[1])


def a_cancel_beside_a_heartbeat(two: Writers) -> list[str]:
    """A caller cancels while the holder's heartbeat, of a record that was not cancelled, is under way."""
    record = two.taken("holder")
    beat = two.keeper(two.far, record).change
    heartbeat = threading.Thread(target=beat, args=(lambda found: found.renewed(1, now()),))
    with two.under_way(RECORD, heartbeat):
        two.trainer(two.near).trainings.cancel(record.name)
    found, _ = two.records.read(record.name)
    return ["the cancel is lost"] * (not found.cancel_requested) + ["the step is lost"] * (found.completed_steps != 1)


def two_takes(two: Writers) -> list[str]:
    """Two workers have seen that a training is free, and take it."""
    record = two.trainer(two.near).trainings.create(two.request()).record
    _, etag = two.records.read(record.name)
    holders = []

    def take(holder: str, records: TrainingStore) -> None:
        try:
            records.replace(record.taken(holder, now()), etag)
            holders.append(holder)
        except ObjectChanged:
            return

    with two.under_way(RECORD, threading.Thread(target=take, args=("far", TrainingStore(two.far)))):
        take("near", two.records)
    return [f"{holders} took the training in one epoch"] * (len(holders) != 1)


def a_lost_answer(two: Writers) -> list[str]:
    """The answer to a holder's event is lost; it goes on writing, as the reporter does."""
    record = two.taken("holder")
    writer = JournalWriter(two.far, record.name, record.epoch, now)
    with two.proxy.when(Rule("PUT", EVENTS, answer_lost)):
        try:
            writer.append([CheckpointSaved(step=1)])
        except StoreError:
            writer.append([])
    two.succeed(record)
    return violations_of(two.near, record.name)


def a_garbled_checkpoint(two: Writers) -> list[str]:
    """A checkpoint's file has one wrong bit, however often it is read."""
    record = two.taken("holder")
    own = {"a": torch.arange(1000, dtype=torch.float32)}
    snapshot = Snapshot(1, Weights(own, {}, {}), {}, Standing())
    Checkpoints(two.near, record.name, record.epoch).save(snapshot)
    reader = Checkpoints(two.far, record.name, record.epoch)
    with two.proxy.when(Rule("GET", OWN_FILE, garbled, times=100)):
        try:
            loaded = reader.load(reader.latest())
        except DamagedCheckpoint:
            return []
    assert loaded is not None
    return ["other weights were loaded than saved"] * (not torch.equal(loaded.weights.own["a"], own["a"]))


def without_conditions(two: Writers, monkeypatch: pytest.MonkeyPatch) -> None:
    two.proxy.drops_conditions = True


def without_reading_back(two: Writers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MinioStore, "_stored_now", lambda self, key: None)


def without_hashes(two: Writers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints_module, "read_verified", lambda store, key, digest: store.get(key).body)


CASES: dict[str, tuple[Callable[[Writers], list[str]], SwitchOff]] = {
    "conditional create: a late manifest": (a_late_manifest, without_conditions),
    "conditional create: a late event": (a_late_event, without_conditions),
    "conditional create: equal submits": (two_equal_submits, without_conditions),
    "compare-and-swap: a cancel beside a heartbeat": (a_cancel_beside_a_heartbeat, without_conditions),
    "compare-and-swap: two takes": (two_takes, without_conditions),
    "read-back: a lost answer": (a_lost_answer, without_reading_back),
    "hash check: a garbled checkpoint": (a_garbled_checkpoint, without_hashes),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mechanism_keeps_harm_away(two: Writers, case: str) -> None:
    scenario, _ = CASES[case]
    assert scenario(two) == []


@pytest.mark.parametrize("case", CASES)
def test_without_its_mechanism_harm_is_done_and_found(two: Writers, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario, switch_off = CASES[case]
    switch_off(two, monkeypatch)
    assert scenario(two) != []
