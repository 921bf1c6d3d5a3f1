"""A trainer service and its workers on a real store behind a proxy: what the scenarios of a module share.

Its one rule: after each scenario everything is as before it, or the check says what is not.
"""

import os
import time
import uuid
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import grpc

from personae.v1 import trainer_pb2_grpc, training_pb2
from service_kit import schema
from service_kit.adapter_manifest import read_manifest
from service_kit.names import AdapterVersionName, ProjectName, TrainingName
from tests.faults.invariants import check_resumable, events_across_outages, settled_violations_of
from tests.faults.store_proxy import StoreProxy, store_proxy
from tests.integration.trainer_calls import UNJUDGED, UNJUDGED_CONFIG, TrainerCalls, unique
from tests.real_store import RealStore
from tests.service_process import ServiceProcess, running_service, service_environment
from trainer_service.training_store import TrainingStore

State = training_pb2.Training.State
CONFIG = UNJUDGED_CONFIG | {"steps": 6, "checkpoint_every": 2}
_WORKERS = 2
_CALM_WITHIN_S = 90.0
_ENDED_WITHIN_S = 300.0
_LOOK_AGAIN_S = 0.2


class Stack:
    """One service with two workers, so that a second takes over while the first is replaced."""

    def __init__(self, store: RealStore, folder: Path, stack: ExitStack, workers: int = _WORKERS) -> None:
        self.store = store.store
        self.proxy: StoreProxy = stack.enter_context(store_proxy(store.endpoint))
        self._behind_proxy = replace(store, endpoint=self.proxy.endpoint)
        self._log, self._scratch = folder / "trainer.log", folder / "scratch"
        self._scratch.mkdir()
        self._workers = workers
        self._stack = stack
        self.service, self.calls = self._start_service()
        self.wait_until_calm()
        self.dataset = self.calls.dataset(3)
        training = self.train()
        assert self.calls.finish(training.name).state == State.STATE_SUCCEEDED
        self._body = self._adapter_body(training)
        self.wait_until_calm()
        self._open_files = self._count_open_files()

    def environment(self) -> dict[str, str]:
        """Of a process that uses the store through the proxy; temporary files go into a folder that is looked at."""
        settings = UNJUDGED | {"PERSONAE_TRAINER_WORKERS": str(self._workers)}
        return service_environment(self._behind_proxy, **settings) | {"TMPDIR": str(self._scratch)}

    def train(self) -> training_pb2.Training:
        """A training that, undisturbed, makes the same adapter every time; asked for again while the store is away."""
        give_up = time.monotonic() + _ENDED_WITHIN_S
        adapter_id, request_id = unique("adapter"), str(uuid.uuid4())
        while True:
            try:
                return self.calls.train(self.dataset, adapter_id, request_id, **CONFIG)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > give_up:  # type: ignore[attr-defined]
                    raise
                time.sleep(_LOOK_AGAIN_S)

    def replace_service(self) -> None:
        """Start another service where this one has died."""
        self.service.process.wait()
        self.service, self.calls = self._start_service()
        self.wait_until_calm()
        self._open_files = self._count_open_files()

    def trainings(self) -> set[str]:
        """The names of all trainings, those without a record too."""
        prefix = schema.trainings_prefix(ProjectName("default"))
        return {folder.rstrip("/") for folder in self.store.folders(prefix)}

    def stored(self, training: training_pb2.Training) -> dict[str, str]:
        """All that there is of a training and its adapter, as ETags by key."""
        adapter = schema.adapter_versions_prefix(AdapterVersionName.parse(training.adapter).adapter_name)
        keys = [*self.store.keys(f"{training.name}/"), *self.store.keys(adapter)]
        return {key: self.store.get(key).etag for key in keys}

    def wait_for_end(self, training: training_pb2.Training) -> None:
        """Wait until the record says that it has ended, whatever the end."""
        give_up = time.monotonic() + _ENDED_WITHIN_S
        name = TrainingName.parse(training.name)
        while not TrainingStore(self.store).read(name)[0].state.is_final:
            assert time.monotonic() < give_up, f"{name} has not ended"
            time.sleep(_LOOK_AGAIN_S)

    def takes(self, training: training_pb2.Training) -> int:
        """How many workers had the training, one after another."""
        return TrainingStore(self.store).read(TrainingName.parse(training.name))[0].epoch

    def check(self, training: training_pb2.Training) -> None:
        """Wait for the training's end and check everything there is to check."""
        events = events_across_outages(self.calls, training.name)
        assert events[-1].ended.state == State.STATE_SUCCEEDED, events[-1]
        found = settled_violations_of(self.store, TrainingName.parse(training.name))
        assert found == [], found
        check_resumable(self.calls, training.name, events)
        assert self._adapter_body(training) == self._body, "another adapter than that of an undisturbed training"
        assert list(self._scratch.iterdir()) == []
        self.check_leaks()

    def check_leaks(self) -> None:
        """No zombies, no workers too many, no open files beyond what the service had before, sockets aside."""
        self.wait_until_calm()
        assert self._count_open_files() == self._open_files

    def wait_until_calm(self) -> None:
        """Wait until there are as many workers as there are to be, all alive."""
        give_up = time.monotonic() + _CALM_WITHIN_S
        while len(children := self.service.child_processes()) != self._workers or any(map(_is_zombie, children)):
            assert time.monotonic() < give_up, f"the workers are {children}"
            time.sleep(_LOOK_AGAIN_S)

    def _count_open_files(self) -> int:
        """Of the service, but for sockets: how many connections its pools keep is theirs to say."""
        count = 0
        for entry in Path(f"/proc/{self.service.process.pid}/fd").iterdir():
            try:
                count += not os.readlink(entry).startswith("socket:")
            except FileNotFoundError:
                # It was closed meanwhile.
                continue
        return count

    def _adapter_body(self, training: training_pb2.Training) -> bytes:
        name = AdapterVersionName.parse(training.adapter)
        manifest = read_manifest(self.store, name)
        assert manifest is not None
        return self.store.get(schema.adapter_blob(name, manifest.artifacts[0].digest)).body

    def _start_service(self) -> tuple[ServiceProcess, TrainerCalls]:
        service = self._stack.enter_context(running_service("trainer_service", self.environment(), self._log))
        channel = self._stack.enter_context(grpc.insecure_channel(service.address))
        return service, TrainerCalls(trainer_pb2_grpc.TrainerServiceStub(channel))


def _is_zombie(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return False
