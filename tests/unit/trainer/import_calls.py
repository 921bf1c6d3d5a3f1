"""Imports into a store in memory: headers, streams, and a service that takes them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from base_models.catalog import read_allow_list
from service_kit.adapter_manifest import AdapterManifest, ConsentEntry
from service_kit.memory_store import MemoryStore
from service_kit.names import AdapterName
from tests.lora_files import LINEAR, file, kohya, own
from tests.unit.trainer.trainer_fakes import Clock
from trainer_service.import_request import ImportChunk, ImportHeader, ImportPart
from trainer_service.importing import Importing

BASE_MODELS = read_allow_list(["toon-64"])
MIA = AdapterName("default", "mia")
CONSENT = ConsentEntry(given_by="Mia", purpose="a comic", evidence="form 7")
BODY, OTHER = file(kohya(LINEAR, rank=4)), file(own(LINEAR))


def header(**changes: Any) -> ImportHeader:
    """One that is right but for `changes`."""
    values: dict[str, Any] = {
        "parent": "",
        "adapter_id": "mia",
        "base_model": "toon-64",
        "trigger_word": "",
        "new_version": False,
        "request_id": "",
        "class_noun": "",
        "licence": "",
        "consent": None,
    }
    return ImportHeader(**(values | changes))


async def stream(*parts: ImportPart | BaseException) -> AsyncIterator[ImportPart]:
    """The parts, one by one; an error is raised in its turn."""
    for part in parts:
        if isinstance(part, BaseException):
            raise part
        yield part


class ImportService:
    """Its parts, and its clock."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store, self.clock = store or MemoryStore(), Clock()
        self.importing = Importing(self.store, BASE_MODELS, self.clock)

    def take(self, *parts: ImportPart | BaseException) -> AdapterManifest:
        return asyncio.run(self.importing.receive(stream(*parts)))

    def bring(self, body: bytes = BODY, **changes: Any) -> AdapterManifest:
        """Import a file in two chunks."""
        return self.take(header(**changes), ImportChunk(body[:100]), ImportChunk(body[100:]))

    def stored(self) -> list[str]:
        return list(self.store.keys(""))
