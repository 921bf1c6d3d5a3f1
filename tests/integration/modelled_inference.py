"""The inference service with a model of an engine: fixed speed, fair among projects, no arithmetic.

`python -m tests.integration.modelled_inference` serves on a free port and says where, as the real one does.
"""

import asyncio
import json
import tempfile
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from base_models.catalog import read_allow_list
from inference_service.adapter_cache import AdapterCache
from inference_service.adapter_uses import AdapterUses
from inference_service.adapters import Adapters
from inference_service.admission import Admission, Limits
from inference_service.engine import AppliedAdapter, HostAdapter, Picture
from inference_service.events import Progress
from inference_service.finishing import Finishing
from inference_service.generation import GenerationRequest
from inference_service.host_adapters import HostAdapters
from inference_service.ledger import Ledger
from inference_service.made_images import MadeImages
from inference_service.manifests import Manifests
from inference_service.picture_decoding import decode
from inference_service.served_adapters import ServedAdapters
from inference_service.servicer import InferenceServicer
from inference_service.start_pictures import read_dataset_image
from inference_service.studio import ServedBaseModel, Studio
from personae.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from service_kit.error_status import ErrorInterceptor
from service_kit.memory_store import MemoryStore

# Slow, so that ten times the load is not too much for the machine that makes it.
STEPS_PER_S = 40.0
LIMITS = Limits(cost=1_000, requests=48, project_share=0.5)


class ModelEngine:
    """See Engine. A step takes its time on a timer; projects take turns by steps, a project's requests in order."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Work]] = {}
        self._arrived = asyncio.Event()

    def read_adapter(self, body: bytes) -> HostAdapter:
        raise NotImplementedError

    def in_slots(self) -> frozenset[str]:
        return frozenset()

    async def run(self) -> None:
        """Do one step of each project in turn, for ever."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
                due_s = loop.time()
            # Due at fixed times, so that a late timer does not make it slower.
            due_s += 1 / STEPS_PER_S
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            if self._waiting:
                project = next(iter(self._waiting))
                turns = self._waiting.pop(project)
                turns[0].step()
                if turns[0].finished:
                    turns.popleft()
                if turns:
                    # Behind the other projects.
                    self._waiting[project] = turns

    async def generate(
        self, request: GenerationRequest, adapters: Sequence[AppliedAdapter]
    ) -> AsyncGenerator[Progress | Picture, Any]:
        work = Work(request)
        self._waiting.setdefault(request.project, deque()).append(work)
        self._arrived.set()
        try:
            yield Progress((0,), 0, request.steps)
            for _ in range(len(request.tasks) * (request.steps + 1)):
                yield await work.results.get()
        finally:
            if not work.finished:
                turns = self._waiting[request.project]
                turns.remove(work)
                if not turns:
                    del self._waiting[request.project]


class Work:
    """A request's steps, image by image."""

    def __init__(self, request: GenerationRequest) -> None:
        self.results: asyncio.Queue[Progress | Picture] = asyncio.Queue()
        self._request = request
        self._steps = 0

    @property
    def finished(self) -> bool:
        """Whether every image has had all its steps."""
        return self._steps == len(self._request.tasks) * self._request.steps

    def step(self) -> None:
        """Do a step of the first image that is not finished."""
        request = self._request
        task = request.tasks[self._steps // request.steps]
        self._steps += 1
        completed = (self._steps - 1) % request.steps + 1
        self.results.put_nowait(Progress((task.index,), completed, request.steps))
        if completed == request.steps:
            self.results.put_nowait(Picture(task, np.zeros((request.height, request.width, 3), np.uint8)))


async def main() -> None:
    """Serve until killed."""
    engine, store = ModelEngine(), MemoryStore()
    entry = read_allow_list(["toon-64"])["toon-64"]
    base = ServedBaseModel(entry, "d" * 64, lambda text: len(text.split()), engine)
    served = {entry.name: base}
    cache = AdapterCache(store, Path(tempfile.mkdtemp()), max_bytes=0)
    host, uses = HostAdapters(cache, 0, time.monotonic), AdapterUses(lambda: datetime.now(UTC))
    adapters = Adapters(Manifests(store, time.monotonic), host, uses)
    ledger = Ledger(store, lambda: datetime.now(UTC))
    made = MadeImages(store, "bucket")
    finishing = Finishing(made, ledger, None)
    admission = Admission(LIMITS, time.monotonic)
    read_image = partial(read_dataset_image, store)
    studio = Studio(served, adapters, admission, finishing, time.monotonic, read_image, decode)
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    servicer = InferenceServicer(studio, ServedAdapters(served, adapters, uses, host, cache), ledger, made)
    add_InferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    address = f"127.0.0.1:{port}"
    print(json.dumps({"event": "serving", "address": address, "health_address": address}), flush=True)
    await engine.run()


if __name__ == "__main__":
    asyncio.run(main())
