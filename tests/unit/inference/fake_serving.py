"""The inference service over a loopback port with a fake engine and an in-memory store."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from numpy.typing import NDArray

from base_models.adapters.adapter_file import AdapterInvalid
from base_models.catalog import read_allow_list
from inference_service.adapter_cache import AdapterCache
from inference_service.adapter_uses import AdapterUses
from inference_service.adapters import Adapters
from inference_service.admission import Admission, Demand, Limits
from inference_service.content_check import Checker, ContentCheck
from inference_service.engine import AppliedAdapter, HostAdapter, Picture, Preview
from inference_service.events import Progress
from inference_service.finishing import Finishing
from inference_service.generation import GenerationRequest, ImageTask
from inference_service.host_adapters import HostAdapters
from inference_service.ledger import Ledger
from inference_service.made_images import MadeImages
from inference_service.manifests import Manifests
from inference_service.metrics import InferenceMetrics
from inference_service.observed_studio import ObservedStudio
from inference_service.picture_decoding import decode
from inference_service.served_adapters import ServedAdapters
from inference_service.servicer import InferenceServicer
from inference_service.start_pictures import read_dataset_image
from inference_service.studio import ServedBaseModel, Studio
from personae.v1 import inference_pb2 as pb
from personae.v1.inference_pb2_grpc import InferenceServiceStub, add_InferenceServiceServicer_to_server
from service_kit.access_interceptor import AccessInterceptor
from service_kit.error_status import ErrorInterceptor
from service_kit.memory_store import MemoryStore
from service_kit.observed_store import ObservedStore
from service_kit.observing import ObservingInterceptor
from service_kit.serving import Watched
from service_kit.store import ObjectStore
from tests.bucket_adapters import BASE_MODEL_DIGEST

if TYPE_CHECKING:
    from inference_service.content_credentials import ContentCredentials

BROKEN_FILE = b"not an adapter"
PATIENCE_S = 10.0
# What the wall clock shows while the other stands at 0.
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
MADE_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROOMY = Limits(cost=20_000, requests=512, project_share=1.0)
D = TypeVar("D")


class FakeEngine:
    """See Engine. Waits while `gate` is closed; closes it itself at each preview, and after `gate_after` images.

    A picture is noise drawn from its seed, a preview from its step. ungated: images of each request that are computed
    all the same.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.gate_after: int | None = None
        self.ungated = 0
        self.computed: list[ImageTask] = []
        self.adapters: Sequence[AppliedAdapter] = ()
        self.requests: list[GenerationRequest] = []
        self.begun = asyncio.Event()
        self.freed = asyncio.Event()

    def read_adapter(self, body: bytes) -> HostAdapter:
        if body == BROKEN_FILE:
            raise AdapterInvalid("a fake reason")
        return HostAdapter({}, len(body))

    def in_slots(self) -> frozenset[str]:
        return frozenset(adapter.digest for adapter in self.adapters)

    async def generate(
        self, request: GenerationRequest, adapters: Sequence[AppliedAdapter]
    ) -> AsyncGenerator[Progress | Preview | Picture, Any]:
        self.begun.set()
        self.adapters = adapters
        self.requests.append(request)
        try:
            for task in request.tasks:
                if task.index >= self.ungated:
                    await self.gate.wait()
                for step in range(request.steps_run + 1):
                    yield Progress((task.index,), step, request.steps_run)
                    if request.preview_every and 0 < step < request.steps and step % request.preview_every == 0:
                        self.gate.clear()
                        yield Preview(task, step, drawn(step, 16, 24))
                        await self.gate.wait()
                self.computed.append(task)
                if len(self.computed) == self.gate_after:
                    self.gate.clear()
                yield Picture(task, drawn(task.seed, request.height, request.width))
        finally:
            self.freed.set()


def drawn(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """The fake engine's pixels_HWC."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


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
    clock: Clock
    channel: grpc.aio.Channel

    async def generate(self, request: pb.GenerateRequest) -> list[pb.GenerateResponse]:
        """All messages of one call."""
        return [message async for message in self.stub.Generate(request, timeout=PATIENCE_S)]


@asynccontextmanager
async def fake_serving(
    folder: Path,
    limits: Limits = ROOMY,
    bucket: ObjectStore | None = None,
    host_bytes: int = 10**6,
    checker: Checker | None = None,
    credentials: "ContentCredentials | None" = None,
    access: AccessInterceptor | None = None,
    watched: Watched | None = None,
) -> AsyncIterator[FakeServing]:
    """Serve on a free loopback port. bucket: what the service uses instead of the in-memory store.

    access: asks who calls.
    """
    engine, store, clock = FakeEngine(), MemoryStore(), Clock()
    entry = read_allow_list(["toon-64"])["toon-64"]
    base = ServedBaseModel(entry, BASE_MODEL_DIGEST, lambda text: len(text.split()), engine)
    reads_from = bucket or store
    if watched:
        reads_from = ObservedStore(reads_from, watched.metrics.note_store_call)
    cache, manifests = AdapterCache(reads_from, folder, max_bytes=10**6), Manifests(reads_from, clock)
    host, uses = HostAdapters(cache, host_bytes, clock), AdapterUses(lambda: EPOCH + timedelta(seconds=clock()))
    adapters = Adapters(manifests, host, uses)
    check = ContentCheck(checker) if checker else None
    ledger = Ledger(reads_from, lambda: MADE_AT)
    made = MadeImages(reads_from, "bucket-1")
    finishing = Finishing(made, ledger, check, credentials)
    read_image = partial(read_dataset_image, reads_from)
    studio = Studio({entry.name: base}, adapters, Admission(limits, clock), finishing, clock, read_image, decode)
    served_adapters = ServedAdapters({entry.name: base}, adapters, uses, host, cache)
    observing, asked = [], studio
    if watched:
        observing.append(ObservingInterceptor(watched.metrics, watched.traces.tracer))
        counted = InferenceMetrics(
            watched.metrics.registry, studio.admission, {entry.name: engine}, adapters, host, cache
        )
        asked = ObservedStudio(studio, counted)
    server = grpc.aio.server(interceptors=[*observing, ErrorInterceptor(), *([access] if access else [])])
    add_InferenceServiceServicer_to_server(InferenceServicer(asked, served_adapters, ledger, made), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield FakeServing(InferenceServiceStub(channel), studio, engine, store, clock, channel)
    finally:
        await server.stop(0)
        manifests.close()
        host.close()
        if check:
            check.close()


def serve(folder: Path, scenario: Callable[[FakeServing], Awaitable[None]], **options: Any) -> None:
    """Run a scenario against the service. options: as of `fake_serving`."""

    async def run() -> None:
        async with fake_serving(folder, **options) as serving:
            await scenario(serving)

    asyncio.run(asyncio.wait_for(run(), 3 * PATIENCE_S))


def measure_speed(admission: Admission, clock: Clock, passes_per_s: float) -> None:
    """Have as much done at that speed as a project may ask for."""
    with admission.admit(Demand("measured", 1, admission.limits.project_cost), None) as ticket:
        ticket.progress([0], 0, 1)
        clock.now_s += admission.limits.project_cost / passes_per_s
        ticket.finish(0)


def ask(*seeds: int, **fields: Any) -> pb.GenerateRequest:
    """A request for these seeds of one prompt."""
    prompts = [pb.GenerateRequest.Prompt(text="a red hat", seeds=seeds)]
    return pb.GenerateRequest(**({"prompts": prompts, "steps": 2} | fields))


def ask_with_adapter(name: object) -> pb.GenerateRequest:
    """A request for one image with an adapter."""
    return ask(1, adapters=[pb.AdapterWeight(adapter=str(name))])


async def rest_of(call: Any) -> list[pb.GenerateResponse]:
    """The messages of a call that were not read yet."""
    messages: list[pb.GenerateResponse] = []
    while (message := await call.read()) is not grpc.aio.EOF:
        messages.append(message)
    return messages


async def refusal_of(
    serving: FakeServing, request: pb.GenerateRequest, detail: type[D]
) -> tuple[grpc.StatusCode, str, D]:
    """Status, reason and one detail of a call that must fail before anything is computed."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await serving.generate(request)
    status = rpc_status.from_call(caught.value)
    assert status is not None
    info, found = error_details_pb2.ErrorInfo(), detail()
    assert status.details[0].Unpack(info)
    assert info.domain == "personae"
    assert status.details[1].Unpack(found)
    assert serving.engine.computed == []
    assert serving.studio.admission.cost_waiting == 0
    return caught.value.code(), info.reason, found
