"""From the names of adapters to their checked tensors: manifest, file, rules; each from the nearest place that has it.

Its one rule: whatever is wrong with an adapter is said here, as an error of its request, before any GPU work.
"""

import asyncio
from collections import Counter

from base_models.adapters.adapter_file import AdapterInvalid
from inference_service.adapter_uses import AdapterUse, AdapterUses
from inference_service.engine import AppliedAdapter, Engine, HostAdapter
from inference_service.generation import WantedAdapter
from inference_service.host_adapters import HostAdapters, HostKey
from inference_service.manifests import Manifests, Name
from service_kit import schema
from service_kit.adapter_manifest import ADAPTER_FILE, AdapterManifest
from service_kit.call_context import span
from service_kit.errors import DataLost, PreconditionUnmet, ResourceMissing
from service_kit.names import AdapterVersionName


class Adapters:
    """The bucket's adapters. Used on the event loop only, which it never holds up.

    An adapter in host memory whose name is in steady use costs no store, no disk, no hashing and no thread.
    """

    def __init__(self, manifests: Manifests, host: HostAdapters, uses: AdapterUses) -> None:
        self._manifests = manifests
        self._host = host
        self._uses = uses
        self.found: Counter[str] = Counter()
        """Times that an adapter was wanted and was already in a `slot`, or in `host` memory."""

    async def resolve(self, name: Name) -> AdapterManifest:
        """The manifest of a version, or of the latest. Raises ResourceMissing, PreconditionUnmet or DataLost."""
        known = self._manifests.known(name)
        if known is not None:
            return known
        try:
            # Others may wait for the same answer, so who leaves must not cancel it.
            return await asyncio.shield(asyncio.wrap_future(self._manifests.read(name)))
        except ResourceMissing:
            self._forget(name)
            raise

    async def apply(
        self, wanted: WantedAdapter, base_model: str, base_model_digest: str, engine: Engine
    ) -> AppliedAdapter:
        """Fetch an adapter and check it against the base model that the engine runs.

        Raises ResourceMissing, PreconditionUnmet or DataLost.
        """
        with span("fetch adapter", adapter=str(wanted.name)):
            use, content = await self.load(await self.resolve(wanted.name), base_model, base_model_digest, engine)
        return AppliedAdapter(use.name, use.key.digest, wanted.weight, content)

    async def load(
        self, manifest: AdapterManifest, base_model: str, base_model_digest: str, engine: Engine
    ) -> tuple[AdapterUse, HostAdapter]:
        """Bring an adapter into host memory and note that it was used. Raises PreconditionUnmet or DataLost."""
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
        key = HostKey(base_model, file.digest)
        content = self._host.find(key)
        if content is not None:
            self.found["slot" if key.digest in engine.in_slots() else "host"] += 1
        else:
            blob = schema.adapter_blob(manifest.name, file.digest)
            try:
                content = await asyncio.wrap_future(self._host.load(key, blob, engine.read_adapter))
            except DataLost:
                # Of a deleted adapter the file goes too; what is still remembered of it may be four seconds old.
                await asyncio.shield(asyncio.wrap_future(self._manifests.read(manifest.name)))
                raise
            except AdapterInvalid as error:
                raise PreconditionUnmet(
                    "ADAPTER_INVALID", str(manifest.name), f"the file of adapter {manifest.name} is not usable: {error}"
                ) from error
        return self._uses.note(manifest.name, key, content.size_bytes, file.size_bytes), content

    def is_deleted(self, name: AdapterVersionName) -> bool:
        """Whether a version that was resolved is known to be deleted since. Does not wait; see Manifests."""
        if not self._manifests.is_deleted(name):
            return False
        self._forget(name)
        return True

    def _forget(self, name: Name) -> None:
        """What nobody may use any more needs no memory, pinned or not, and no disk."""
        for key in self._uses.forget(name):
            self._host.drop(key)
