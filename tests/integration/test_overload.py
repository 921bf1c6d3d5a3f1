"""Ten times the load that the service can carry, over a real port: what ends in time, and what is held meanwhile."""

import asyncio
import os
import random
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from personae.v1 import inference_pb2 as pb
from personae.v1.inference_pb2_grpc import InferenceServiceStub
from tests.integration.modelled_inference import LIMITS, STEPS_PER_S
from tests.service_process import ServiceProcess, running_service

STEPS = 20
SUSTAINABLE_PER_S = STEPS_PER_S / STEPS
PEAK_S, OVERLOAD_S = 10.0, 30.0
DEADLINE_S, PATIENCE_S = 8.0, 12.0
# One project asks for as much as all others together.
PROJECTS = ["flood"] * 5 + ["a", "b", "c", "d", "e"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    log = tmp_path_factory.mktemp("modelled") / "log"
    with running_service("tests.integration.modelled_inference", os.environ, log) as running:
        yield running


@pytest.mark.slow
def test_under_ten_times_the_load_goodput_stays_and_nothing_piles_up(service: ServiceProcess) -> None:
    async def run() -> None:
        async with grpc.aio.insecure_channel(service.address) as channel:
            stub = InferenceServiceStub(channel)
            watch = Watch(stub, service.process.pid)
            peak_per_s = await watch.during(_peak(stub))
            before_kb = watch.memory_kb
            goodput_per_s = await watch.during(_overload(stub))
            print(f"{goodput_per_s:.2f} of {peak_per_s:.2f} images/s, {before_kb} to {watch.memory_kb} kB")
            assert goodput_per_s >= 0.9 * peak_per_s
            assert watch.memory_kb <= 1.1 * before_kb
            assert watch.cost <= LIMITS.cost
            assert watch.requests <= LIMITS.requests
            # The callers have gone; the server sees so a little later.
            info = await watch.look()
            while info.requests_open:
                info = await watch.look()
            assert (info.cost_waiting, info.images_waiting) == (0, 0)

    asyncio.run(asyncio.wait_for(run(), 300.0))


async def _peak(stub: Any) -> float:
    """Images a second with as many callers as keep it busy, each with one request at a time."""
    finished = 0

    async def caller(project: str) -> None:
        nonlocal finished
        while True:
            await _generate(stub, project, DEADLINE_S)
            finished += 1

    # The first seconds are for connecting and for the speed to be measured.
    callers = [asyncio.create_task(caller(project)) for project in ("a", "b", "c", "d")]
    await asyncio.sleep(3.0)
    finished = 0
    await asyncio.sleep(PEAK_S)
    await _stop(callers)
    return finished / PEAK_S


async def _overload(stub: Any) -> float:
    """Images a second that are finished in time, while ten times as many are asked for as can be made."""
    draw = random.Random(1)
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    finished: list[float] = []

    async def caller(project: str) -> None:
        """Asks, and asks again when told to, until it is served or has no patience left."""
        give_up_s = loop.time() + PATIENCE_S
        while loop.time() < give_up_s:
            retry_s = await _generate(stub, project, DEADLINE_S)
            if retry_s is None:
                finished.append(loop.time())
                return
            await asyncio.sleep(retry_s * draw.uniform(1.0, 1.2))

    callers = []
    arrival_s = started_s
    while (arrival_s := arrival_s + 1 / (10 * SUSTAINABLE_PER_S)) < started_s + OVERLOAD_S:
        await asyncio.sleep(max(0.0, arrival_s - loop.time()))
        callers.append(asyncio.create_task(caller(draw.choice(PROJECTS))))
    await _stop(callers)
    # What was begun in the first seconds could not be finished in them.
    return sum(time_s >= started_s + DEADLINE_S for time_s in finished) / (OVERLOAD_S - DEADLINE_S)


async def _generate(stub: Any, project: str, deadline_s: float) -> float | None:
    """None once the image has come in time; else how long to wait, as the server says, before asking again."""
    prompts = [pb.GenerateRequest.Prompt(text="a red hat", seeds=[1])]
    request = pb.GenerateRequest(prompts=prompts, steps=STEPS, project=project)
    try:
        async for message in stub.Generate(request, timeout=deadline_s):
            last = message
        assert last.HasField("done")
        return None
    except grpc.aio.AioRpcError as error:
        if error.code() not in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise
        status, retry = rpc_status.from_call(error), error_details_pb2.RetryInfo()
        told = status is not None and any(detail.Unpack(retry) for detail in status.details)
        return retry.retry_delay.ToMilliseconds() / 1000 if told else DEADLINE_S


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


class Watch:
    """What the service holds, seen from outside: the most of it so far."""

    def __init__(self, stub: Any, process: int) -> None:
        self.cost = self.requests = self.memory_kb = 0
        self._stub = stub
        self._status = Path(f"/proc/{process}/status")

    async def look(self) -> pb.GetServingInfoResponse:
        """Take note of what is held now."""
        info: pb.GetServingInfoResponse = await self._stub.GetServingInfo(pb.GetServingInfoRequest(), timeout=60.0)
        fields = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
        self.cost = max(self.cost, info.cost_waiting)
        self.requests = max(self.requests, info.requests_open)
        self.memory_kb = max(self.memory_kb, int(fields["VmRSS"].split()[0]))
        return info

    async def during(self, work: Awaitable[float]) -> float:
        """Look on until the work is done."""
        working = asyncio.ensure_future(work)
        while not working.done():
            await self.look()
            await asyncio.wait([working], timeout=0.5)
        return working.result()
