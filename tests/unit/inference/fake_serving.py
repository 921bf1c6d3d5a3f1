"""The inference service over a loopback port with a fake engine and an in-memory store."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from personae.v1 import inference_pb2 as pb
from personae.v1.inference_pb2_grpc import InferenceServiceStub, add_InferenceServiceServicer_to_server

from base_models.adapter_file import AdapterInvalid
from base_models.catalog import read_allow_list
from inference_service.adapter_cache import AdapterCache
from inference_service.adapters import Adapters
from inference_service.admission import Admission
from inference_service.engine import AppliedAdapter, Picture
from inference_service.events import Progress
from inference_service.generation import MAX_IMAGES, GenerationRequest, ImageTask
from inference_service.servicer import InferenceServicer
from inference_service.studio import ServedBaseModel, Studio
from service_kit import schema
from service_kit.adapter_manifest import ADAPTER_FILE, AdapterManifest, AdapterReservation, ArtifactEntry
from service_kit.error_status import ErrorInterceptor
from service_kit.memory_store import MemoryStore
from service_kit.names import AdapterVersionName
from service_kit.store import ObjectStore

BASE_MODEL_DIGEST = "d" * 64
BROKEN_FILE = b"not an adapter"
PATIENCE_S = 10.0


class FakeEngine:
    """See Engine. Waits while `gate` is closed; a picture is noise drawn from its seed."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.computed: list[ImageTask] = []
        self.adapters: Sequence[AppliedAdapter] = ()
        self.begun = asyncio.Event()
        self.freed = asyncio.Event()

    def read_adapter(self, body: bytes) -> Mapping[str, Any]:
        if body == BROKEN_FILE:
            raise AdapterInvalid("a fake reason")
        return {}

    async def generate(
        self, request: GenerationRequest, adapters: Sequence[AppliedAdapter]
    ) -> AsyncGenerator[Progress | Picture, Any]:
        self.begun.set()
        self.adapters = adapters
        try:
            await self.gate.wait()
            for task in request.tasks:
                for step in range(request.steps + 1):
                    yield Progress((task.index,), step, request.steps)
                self.computed.append(task)
                shape = (request.height, request.width, 3)
                yield Picture(task, np.random.default_rng(task.seed).integers(0, 256, shape, dtype=np.uint8))
        finally:
            self.freed.set()


@dataclass
class Clock:
    """Stands still until it is moved."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class FakeServing:
    """The service's parts, and a stub to call it."""

    stub: Any
    studio: Studio
    engine: FakeEngine
    store: MemoryStore
    clock: Clock = field(default_factory=Clock)

    async def generate(self, request: pb.GenerateRequest) -> list[pb.GenerateResponse]:
        """All messages of one call."""
        return [message async for message in self.stub.Generate(request, timeout=PATIENCE_S)]


@asynccontextmanager
async def fake_serving(
    folder: Path, limit: int = MAX_IMAGES, bucket: ObjectStore | None = None
) -> AsyncIterator[FakeServing]:
    """Serve on a free loopback port. bucket: what the service reads instead of the in-memory store."""
    engine, store, clock = FakeEngine(), MemoryStore(), Clock()
    entry = read_allow_list(["toon-64"])["toon-64"]
    base = ServedBaseModel(entry, BASE_MODEL_DIGEST, lambda text: len(text.split()), engine)
    reads_from = bucket or store
    adapters = Adapters(reads_from, AdapterCache(reads_from, folder, max_bytes=10**6), clock)
    studio = Studio({entry.name: base}, adapters, Admission(limit, clock), clock)
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    add_InferenceServiceServicer_to_server(InferenceServicer(studio), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield FakeServing(InferenceServiceStub(channel), studio, engine, store, clock)
    finally:
        await server.stop(0)


def reserve(store: ObjectStore, name: AdapterVersionName) -> None:
    """What CreateTraining leaves in the bucket."""
    reservation = AdapterReservation(training=f"projects/{name.project}/trainings/of-{name.adapter}")
    store.create(schema.adapter_reservation(name), reservation.to_json())


def publish(
    store: ObjectStore,
    name: AdapterVersionName,
    body: bytes = b"an adapter",
    base_model: str = "toon-64",
    base_model_digest: str = BASE_MODEL_DIGEST,
) -> str:
    """What a worker leaves in the bucket; returns the file's digest."""
    digest = hashlib.sha256(body).hexdigest()
    store.put(schema.adapter_blob(name, digest), body)
    file = ArtifactEntry(
        artifact_id=ADAPTER_FILE, media_type="application/octet-stream", size_bytes=len(body), digest=digest
    )
    manifest = AdapterManifest(
        project=name.project,
        adapter=name.adapter,
        version=name.version,
        base_model=base_model,
        base_model_digest=base_model_digest,
        training=f"projects/{name.project}/trainings/of-{name.adapter}",
        dataset_digest="0" * 64,
        trigger_word="zxq",
        class_noun="character",
        rank=4,
        targets="attention",
        training_config={},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        artifacts=(file,),
    )
    store.create(schema.adapter_manifest(name), manifest.to_json())
    return digest
