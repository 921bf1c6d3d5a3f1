"""Checkpoints in the bucket: files first, then their manifest, then the pointer to it.

Its one rule: the pointer names only a checkpoint that is whole, and an older epoch never moves it. safetensors and JSON
only; no pickle.
"""

import hashlib

import safetensors.torch
from torch import Tensor

from service_kit import schema
from service_kit.document import Document
from service_kit.names import TrainingName
from service_kit.store import ObjectChanged, ObjectExists, ObjectMissing, ObjectStore
from trainer_service.training_record import LeaseLost
from trainer_service.worker.trainee import Weights
from trainer_service.worker.training_loop import Snapshot, Standing
from trainer_service.worker.verified_reads import DamagedObject, read_verified

_OWN = "own.safetensors"
_AVERAGE = "average.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_BEST = "best.safetensors"
_MANIFEST = "manifest.json"


class CheckpointManifest(Document):
    """A whole checkpoint: its files by name, with the SHA-256 (hex) of each."""

    epoch: int
    step: int
    files: dict[str, str]
    standing: Standing


class CheckpointPointer(Document):
    """Which checkpoint to go on from."""

    epoch: int
    step: int


class DamagedCheckpoint(Exception):
    """A checkpoint's files do not have their hashes."""


class Checkpoints:
    """The checkpoints of one training, written in one epoch."""

    def __init__(self, store: ObjectStore, name: TrainingName, epoch: int) -> None:
        self._store = store
        self._name = name
        self._epoch = epoch

    def save(self, snapshot: Snapshot) -> None:
        """Store a snapshot and make it the one to go on from; older ones are deleted. Raises LeaseLost."""
        weights = snapshot.weights
        tensors = {_OWN: weights.own, _AVERAGE: weights.average, _OPTIMIZER: weights.optimizer, _BEST: snapshot.best}
        files = {filename: _bytes(values) for filename, values in tensors.items()}
        for filename, body in files.items():
            self._store.put(self._key(self._epoch, snapshot.step, filename), body)
        manifest = CheckpointManifest(
            epoch=self._epoch,
            step=snapshot.step,
            files={filename: hashlib.sha256(body).hexdigest() for filename, body in files.items()},
            standing=snapshot.standing,
        )
        self._store.put(self._key(self._epoch, snapshot.step, _MANIFEST), manifest.to_json())
        self._point_to(CheckpointPointer(epoch=self._epoch, step=snapshot.step))
        # Keys sort by epoch and step. What comes after ours is a newer worker's, should we have been taken for dead.
        kept = self._key(self._epoch, snapshot.step, "")
        pointer = schema.checkpoint_pointer(self._name)
        for key in list(self._store.keys(schema.checkpoints_prefix(self._name))):
            if key < kept and key != pointer:
                self._store.delete(key)

    def latest(self) -> CheckpointPointer | None:
        """Which checkpoint to go on from, or None where there is none."""
        try:
            return CheckpointPointer.from_json(self._store.get(schema.checkpoint_pointer(self._name)).body)
        except ObjectMissing:
            return None

    def load(self, pointer: CheckpointPointer | None) -> Snapshot | None:
        """The snapshot of a checkpoint; None of none. Raises DamagedCheckpoint."""
        if pointer is None:
            return None
        key = self._key(pointer.epoch, pointer.step, _MANIFEST)
        manifest = CheckpointManifest.from_json(self._store.get(key).body)
        tensors = {}
        for filename, digest in manifest.files.items():
            try:
                body = read_verified(self._store, self._key(pointer.epoch, pointer.step, filename), digest)
            except DamagedObject as error:
                raise DamagedCheckpoint(str(error)) from None
            tensors[filename] = safetensors.torch.load(body)
        weights = Weights(tensors[_OWN], tensors[_AVERAGE], tensors[_OPTIMIZER])
        return Snapshot(pointer.step, weights, tensors[_BEST], manifest.standing)

    def _point_to(self, pointer: CheckpointPointer) -> None:
        key = schema.checkpoint_pointer(self._name)
        while True:
            try:
                stored = self._store.get(key)
            except ObjectMissing:
                stored = None
            if stored is not None and CheckpointPointer.from_json(stored.body).epoch > self._epoch:
                raise LeaseLost(f"a newer epoch writes the checkpoints of {self._name}")
            try:
                if stored is None:
                    self._store.create(key, pointer.to_json())
                else:
                    self._store.replace(key, pointer.to_json(), stored.etag)
                return
            except (ObjectExists, ObjectChanged):
                continue

    def _key(self, epoch: int, step: int, filename: str) -> str:
        return schema.checkpoint_file(self._name, epoch, step, filename)


def _bytes(tensors: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
