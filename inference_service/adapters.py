"""From the names of adapters to their checked tensors: manifest, file, rules.

Its one rule: whatever is wrong with an adapter is said here, as an error of its request, before any GPU work.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from base_models.adapter_file import AdapterInvalid
from inference_service.adapter_cache import AdapterCache
from inference_service.engine import AppliedAdapter, Engine
from inference_service.generation import WantedAdapter
from service_kit import schema
from service_kit.adapter_manifest import (
    ADAPTER_FILE,
    AdapterManifest,
    is_abandoned,
    read_latest,
    read_manifest,
    read_reservation,
    versions,
)
from service_kit.document import UnreadableDocument
from service_kit.errors import DataLost, PreconditionUnmet, ResourceMissing
from service_kit.names import AdapterName, AdapterVersionName
from service_kit.store import ObjectStore

# A new version is served, and a deleted one is not, after this at the latest.
_FRESH_S = 2.0


@dataclass(frozen=True)
class _Remembered:
    manifest: AdapterManifest
    until_s: float


class Adapters:
    """The bucket's adapters. All calls block; safe for use by several threads."""

    def __init__(self, store: ObjectStore, cache: AdapterCache, clock: Callable[[], float]) -> None:
        self._store = store
        self._cache = cache
        self._clock = clock
        self._lock = threading.Lock()
        self._remembered: dict[AdapterName | AdapterVersionName, _Remembered] = {}

    def resolve(self, name: AdapterName | AdapterVersionName) -> AdapterManifest:
        """The manifest of a version, or of the latest. Raises ResourceMissing, PreconditionUnmet or DataLost."""
        now = self._clock()
        with self._lock:
            self._remembered = {key: entry for key, entry in self._remembered.items() if entry.until_s > now}
            if name in self._remembered:
                return self._remembered[name].manifest
        try:
            manifest = (
                read_latest(self._store, name) if isinstance(name, AdapterName) else read_manifest(self._store, name)
            )
        except UnreadableDocument as error:
            raise DataLost(f"the manifest of adapter {name} cannot be read; train it again") from error
        if manifest is None:
            raise self._why_missing(name)
        with self._lock:
            self._remembered[name] = _Remembered(manifest, now + _FRESH_S)
        return manifest

    def apply(self, wanted: WantedAdapter, base_model: str, base_model_digest: str, engine: Engine) -> AppliedAdapter:
        """Fetch an adapter and check it against the base model that the engine runs.

        Raises ResourceMissing, PreconditionUnmet or DataLost.
        """
        manifest = self.resolve(wanted.name)
        if (manifest.base_model, manifest.base_model_digest) != (base_model, base_model_digest):
            raise PreconditionUnmet(
                "BASE_MODEL_MISMATCH",
                str(manifest.name),
                f"adapter {manifest.name} was trained on {manifest.base_model} ({manifest.base_model_digest[:16]}), "
                f"the request runs on {base_model} ({base_model_digest[:16]}); name the other or train again",
            )
        file = manifest.artifact(ADAPTER_FILE)
        if file is None:
            raise DataLost(f"adapter {manifest.name} has no {ADAPTER_FILE}; train it again")
        body = self._cache.read(schema.adapter_blob(manifest.name, file.digest), file.digest)
        try:
            content = engine.read_adapter(body)
        except AdapterInvalid as error:
            raise PreconditionUnmet(
                "ADAPTER_INVALID", str(manifest.name), f"the file of adapter {manifest.name} is not usable: {error}"
            ) from error
        return AppliedAdapter(manifest.name, file.digest, wanted.weight, content)

    def _why_missing(self, name: AdapterName | AdapterVersionName) -> ResourceMissing | PreconditionUnmet:
        """A reserved version has a training, so saying only that it is missing would mislead."""
        version = name
        if isinstance(version, AdapterName):
            reserved = versions(self._store, version)
            if not reserved:
                return ResourceMissing("Adapter", str(name))
            version = version.version(reserved[-1])
        reservation = read_reservation(self._store, version)
        if reservation is None or is_abandoned(self._store, version):
            return ResourceMissing("Adapter", str(name))
        return PreconditionUnmet(
            "ADAPTER_STILL_TRAINING",
            reservation.training,
            f"adapter {version} is not published yet; watch its training {reservation.training}",
        )
