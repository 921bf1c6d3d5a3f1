"""Contestants over the wire, as callers reach them: each is the inference service in a process of its own.

All of them serve from one bucket, behind real ports.
"""

import asyncio
import io
import json
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np
from PIL import Image

from personae.v1 import inference_pb2 as pb
from personae.v1.inference_pb2_grpc import InferenceServiceStub
from tests.benchmarks.serving_contestants import Contestant, adapter_name, note_picture, note_progress
from tests.benchmarks.serving_engines.counters import Counted
from tests.benchmarks.serving_turns import Asked
from tests.real_store import RealStore, free_ports
from tests.service_process import running_service, service_environment

# Every contestant lets as many wait as the benchmark brings; refusing well is not what is compared.
_QUEUE_COST = "1000000"


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
                        note_progress(asked, response.progress.completed_steps / response.progress.total_steps)
                    case "image":
                        pixels_HWC = np.asarray(Image.open(io.BytesIO(response.image.content)))
                        note_picture(asked, pixels_HWC)
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
        finally:
            call.cancel()

    def read() -> Counted:
        with urllib.request.urlopen(f"http://{counters_address}", timeout=60) as answer:
            return Counted(**json.load(answer))

    return Contestant(ask, lambda: asyncio.to_thread(read))


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
