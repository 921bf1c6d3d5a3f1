"""A contestant as the benchmark sees it, and two ways to reach one: over the wire as callers do, or in this process.

Over the wire each is the inference service in a process of its own, on one bucket, behind a real port. In this process
the engine is called through its port: for machines that have a GPU and no object store.
"""

import asyncio
import hashlib
import io
import json
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from PIL import Image

from base_models.catalog import BaseModelEntry
from inference_service.engine import AppliedAdapter, Picture
from inference_service.events import Progress
from inference_service.generation import GenerationRequest, Prompt
from personae.v1 import inference_pb2 as pb
from personae.v1.inference_pb2_grpc import InferenceServiceStub
from service_kit.names import AdapterVersionName
from tests.benchmarks.serving_engines.counters import Counted, CountingEngine, taken
from tests.benchmarks.serving_turns import Ask, Asked
from tests.real_store import RealStore, free_ports
from tests.service_process import running_service, service_environment

# Every contestant lets as many wait as the benchmark brings; refusing well is not what is compared.
_QUEUE_COST = "1000000"


@dataclass(frozen=True)
class Contestant:
    """Who is asked for pictures, and what its engine has counted so far."""

    ask: Ask
    counted: Callable[[], Awaitable[Counted]]


def adapter_name(number: int) -> AdapterVersionName:
    """What the adapter with this number is called."""
    return AdapterVersionName("default", f"load-{number}", 1)


@contextmanager
def running_services(
    names: Sequence[str], store: RealStore, folder: Path, settings: Mapping[str, str]
) -> Iterator[dict[str, tuple[str, str]]]:
    """A service for each contestant, with caches of its own: where it serves, and where it tells its counters.

    settings: further variables of all their environments.
    """
    with ExitStack() as running:
        addresses = {}
        for name, port in zip(names, free_ports(len(names)), strict=True):
            own = folder / f"contestant-{len(addresses)}"
            environment = service_environment(
                store,
                PERSONAE_INFERENCE_CACHE_DIR=str(own),
                PERSONAE_INFERENCE_QUEUE_COST=_QUEUE_COST,
                SERVING_CONTESTANT=name,
                SERVING_COUNTERS=f"127.0.0.1:{port}",
                **settings,
            )
            module = "tests.benchmarks.serving_engines.service"
            service = running.enter_context(running_service(module, environment, own.with_suffix(".log")))
            addresses[name] = (service.address, f"127.0.0.1:{port}")
        yield addresses


def over_the_wire(address: str, counters_address: str) -> Contestant:
    """The service at this address. Call it on the event loop that will use it; its connection lives as long."""
    stub = InferenceServiceStub(grpc.aio.insecure_channel(address))

    async def ask(asked: Asked) -> None:
        call = stub.Generate(_message(asked))
        try:
            async for response in call:
                match response.WhichOneof("kind"):
                    case "progress":
                        _note_progress(asked, response.progress.completed_steps / response.progress.total_steps)
                    case "image":
                        pixels_HWC = np.asarray(Image.open(io.BytesIO(response.image.content)))
                        _note_picture(asked, pixels_HWC)
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
        finally:
            call.cancel()

    def read() -> Counted:
        with urllib.request.urlopen(f"http://{counters_address}", timeout=60) as answer:
            return Counted(**json.load(answer))

    return Contestant(ask, lambda: asyncio.to_thread(read))


def in_this_process(engine: CountingEngine, entry: BaseModelEntry, bodies: Sequence[bytes]) -> Contestant:
    """An engine of this process. bodies: the adapters' files, by their numbers."""
    applied = [
        AppliedAdapter(adapter_name(number), hashlib.sha256(body).hexdigest(), 1.0, content)
        for number, (body, content) in enumerate((body, engine.read_adapter(body)) for body in bodies)
    ]

    async def ask(asked: Asked) -> None:
        number = asked.request.adapter
        async for result in engine.generate(_request(asked, entry), [] if number is None else [applied[number]]):
            if isinstance(result, Picture):
                _note_picture(asked, result.pixels_HWC)
            elif isinstance(result, Progress):
                _note_progress(asked, result.completed_steps / result.total_steps)

    async def counted() -> Counted:
        return taken(engine.counters)

    return Contestant(ask, counted)


def _note_progress(asked: Asked, share: float) -> None:
    if asked.first_progress_s is None:
        asked.first_progress_s = time.perf_counter()
    asked.share_done = share


def _note_picture(asked: Asked, pixels_HWC: "np.ndarray") -> None:
    asked.finished_s, asked.pixels_HWC = time.perf_counter(), pixels_HWC


def _message(asked: Asked) -> pb.GenerateRequest:
    request, kind = asked.request, asked.request.kind
    adapters = [] if request.adapter is None else [pb.AdapterWeight(adapter=str(adapter_name(request.adapter)))]
    return pb.GenerateRequest(
        prompts=[pb.GenerateRequest.Prompt(text=request.prompt, seeds=[request.seed])],
        adapters=adapters,
        width=kind.width,
        height=kind.height,
        steps=kind.steps,
    )


def _request(asked: Asked, entry: BaseModelEntry) -> GenerationRequest:
    """The same with the base model's defaults, as the service would have filled them in."""
    request, kind = asked.request, asked.request.kind
    return GenerationRequest(
        project="default",
        base_model=entry.name,
        adapters=(),
        prompts=(Prompt(request.prompt, (request.seed,)),),
        images_per_prompt=1,
        negative_prompt="",
        guidance_scale=entry.generation.guidance_scale,
        steps=kind.steps,
        scheduler=entry.generation.scheduler,
        width=kind.width,
        height=kind.height,
        file_format="png",
        preview_every=0,
        delivery="inline",
    )
