"""What must hold of a training after whatever happened: in the bucket, over the wire, and of the processes.

Its one rule: it looks at what is stored, through no code that the scenario ran through, and names every violation.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import grpc

from personae.v1 import training_pb2
from service_kit import schema
from service_kit.adapter_manifest import is_abandoned, read_manifest
from service_kit.names import TrainingName
from service_kit.store import ObjectMissing, ObjectStore
from tests.integration.trainer_calls import TrainerCalls
from trainer_service.events import CheckpointSaved, Ended, Event, EventSegment, Validated
from trainer_service.journal import Journal
from trainer_service.lifecycle import State
from trainer_service.training_record import TrainingRecord
from trainer_service.training_store import TrainingStore
from trainer_service.worker.checkpoints import CheckpointManifest, CheckpointPointer

_COME_BACK_S = 0.3
_GIVE_UP_S = 300.0
# A holder that is frozen over its last writes is succeeded after 30 s.
_SETTLED_WITHIN_S = 90.0


def violations_of(store: ObjectStore, name: TrainingName) -> list[str]:
    """Everything that is wrong with a training that ought to have ended, in words; empty: nothing."""
    record, _ = TrainingStore(store).read(name)
    found = [*_of_the_log(store, record), *_of_the_adapter(store, record), *_of_the_checkpoint(store, record)]
    if not record.state.is_final or record.holder:
        found.append(f"the record says {record.state}, held by {record.holder or 'nobody'}")
    found += [
        f"{key} is left" for key in store.keys(schema.queue_prefix()) if schema.training_of_queue_entry(key) == name
    ]
    return found


def settled_violations_of(store: ObjectStore, name: TrainingName) -> list[str]:
    """As `violations_of`, once the queue entry, which goes last, had time to go."""
    give_up = time.monotonic() + _SETTLED_WITHIN_S
    while (found := violations_of(store, name)) and time.monotonic() < give_up:
        time.sleep(_COME_BACK_S)
    return found


def stored_events(store: ObjectStore, name: TrainingName) -> list[Event]:
    """All events that lie in the bucket, in the order of their keys."""
    keys = store.keys(schema.events_prefix(name))
    return [event for key in keys for event in EventSegment.from_json(store.get(key).body).events]


def events_across_outages(calls: TrainerCalls, name: str) -> list[training_pb2.TrainingEvent]:
    """The whole log, watched as a client does: while the service or the store is away, again from the last event."""
    seen: list[training_pb2.TrainingEvent] = []
    give_up = time.monotonic() + _GIVE_UP_S
    while not seen or seen[-1].WhichOneof("kind") != "ended":
        assert time.monotonic() < give_up, f"{name} has not ended; last: {seen[-1:]}"
        try:
            for event in calls.events(name, after=seen[-1].sequence if seen else 0):
                seen.append(event)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            time.sleep(_COME_BACK_S)
    return seen


def check_resumable(calls: TrainerCalls, name: str, seen: list[training_pb2.TrainingEvent]) -> None:
    """A watch from any sequence on brings the event after it, the same as before."""
    for after, expected in enumerate(seen):
        assert next(calls.events(name, after=after)) == expected


def _of_the_log(store: ObjectStore, record: TrainingRecord) -> Iterator[str]:
    events = stored_events(store, record.name)
    sequences = [event.sequence for event in events]
    if sequences != list(range(1, len(events) + 1)):
        yield f"sequences are {sequences}"
    if any(one.epoch > other.epoch for one, other in pairwise(events)):
        yield f"an older holder wrote after a newer: epochs {[event.epoch for event in events]}"
    ends = [event.what for event in events if isinstance(event.what, Ended)]
    if len(ends) != 1 or not isinstance(events[-1].what, Ended):
        yield f"{len(ends)} ends; last is {events[-1].what.kind}"
    elif ends[0].state is not record.state:
        yield f"the log ends {ends[0].state}, the record is {record.state}"
    # One holder says these once.
    told = Counter(
        f"{event.epoch}: {event.what}" for event in events if isinstance(event.what, CheckpointSaved | Validated)
    )
    yield from (f"told {count} times: {what}" for what, count in told.items() if count > 1)
    journal = Journal(store, record.name)
    for sequence in sequences:
        segment = journal.segment_with(sequence)
        if segment is None or sequence not in [event.sequence for event in segment.events]:
            yield f"nobody can go on from sequence {sequence - 1}"


def _of_the_adapter(store: ObjectStore, record: TrainingRecord) -> Iterator[str]:
    folder = schema.adapter_versions_prefix(record.adapter.adapter_name)
    reserved = [key for key in store.keys(folder) if key.endswith("/reservation.json")]
    births = [key for key in store.keys(folder) if key.endswith("/manifest.json")]
    expected = [schema.adapter_manifest(record.adapter)] if record.state is State.SUCCEEDED else []
    if births != expected:
        yield f"{record.state} and manifests {births}"
    if len(reserved) != 1:
        yield f"{len(reserved)} versions are reserved"
    if is_abandoned(store, record.adapter) != (record.state is not State.SUCCEEDED):
        yield f"{record.state} and {'' if is_abandoned(store, record.adapter) else 'not '}abandoned"
    manifest = read_manifest(store, record.adapter)
    if manifest is None:
        return
    if manifest.training != str(record.name):
        yield f"published by {manifest.training}"
    for artifact in manifest.artifacts:
        yield from _of_a_file(store, schema.adapter_blob(record.adapter, artifact.digest), artifact.digest)


def _of_the_checkpoint(store: ObjectStore, record: TrainingRecord) -> Iterator[str]:
    try:
        pointer = CheckpointPointer.from_json(store.get(schema.checkpoint_pointer(record.name)).body)
    except ObjectMissing:
        return
    key = schema.checkpoint_file(record.name, pointer.epoch, pointer.step, "manifest.json")
    try:
        manifest = CheckpointManifest.from_json(store.get(key).body)
    except ObjectMissing:
        yield f"the pointer names {key}, which is not there"
        return
    for filename, digest in manifest.files.items():
        file = schema.checkpoint_file(record.name, pointer.epoch, pointer.step, filename)
        yield from _of_a_file(store, file, digest)
    newest = max(
        (event.epoch for event in stored_events(store, record.name) if isinstance(event.what, CheckpointSaved)),
        default=0,
    )
    if pointer.epoch < newest:
        yield f"the pointer is of epoch {pointer.epoch}, and epoch {newest} saved a checkpoint"


def _of_a_file(store: ObjectStore, key: str, digest: str) -> Iterator[str]:
    try:
        if hashlib.sha256(store.get(key).body).hexdigest() != digest:
            yield f"{key} does not have its hash"
    except ObjectMissing:
        yield f"{key} is not there"
