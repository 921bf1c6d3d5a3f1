"""A worker that dies at a chosen write, as the bucket sees it: that write and all after it never arrive."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import torch

from base_models.catalog import read_allow_list
from base_models.family import BaseModel
from service_kit.memory_store import MemoryStore
from service_kit.names import TrainingName
from service_kit.store import StoredObject, StoreUnavailable
from trainer_service.training_store import TrainingStore
from trainer_service.worker.exit_code import ExitCode
from trainer_service.worker.interrupts import Interrupts
from trainer_service.worker.run import Workbench, run_training


class DyingStore(MemoryStore):
    """Another process's view of `behind`, which is cut off for good at the first write for which `dies` is true.

    dies: of the keys written so far, the present one last. kill -9 and a connection that never comes back look the same
    from the bucket: nothing more arrives.
    """

    def __init__(self, behind: MemoryStore, dies: Callable[[list[str]], bool]) -> None:
        super().__init__()
        self._objects = behind._objects
        self._lock = behind._lock
        self._dies = dies
        self._counting = threading.Lock()
        self.writes: list[str] = []
        self.is_dead = False

    def get(self, key: str) -> StoredObject:
        if self.is_dead:
            raise StoreUnavailable("dead")
        return super().get(key)

    def delete(self, key: str) -> None:
        self._count(key)
        super().delete(key)

    def put(self, key: str, body: bytes) -> None:
        self._count(key)
        super().put(key, body)

    def create(self, key: str, body: bytes) -> str:
        self._count(key)
        return super().create(key, body)

    def replace(self, key: str, body: bytes, etag: str) -> str:
        self._count(key)
        return super().replace(key, body, etag)

    def _count(self, key: str) -> None:
        with self._counting:
            self.writes.append(key)
            self.is_dead = self.is_dead or self._dies(self.writes)
            if self.is_dead:
                raise StoreUnavailable("dead")


def _utc() -> datetime:
    return datetime.now(UTC)


def carry_out(
    store: MemoryStore, name: TrainingName, base: BaseModel, holder: str, now: Callable[[], datetime] = _utc
) -> ExitCode:
    """One take of a training by one worker, over whatever lease there is."""
    bench = Workbench(
        store=store,
        base_models=read_allow_list(["toon-64"]),
        holder=holder,
        now=now,
        device=torch.device("cpu"),
        # Judging takes most of the time and writes nothing.
        judge_for=lambda entry: None,
        bases={"toon-64": base},
    )
    return run_training(bench, name, TrainingStore(store).read(name)[1], Interrupts())
