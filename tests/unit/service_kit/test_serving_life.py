"""Server boot and drain: the ready line, both health ports, ports that are taken, a store that is away."""

import asyncio
import json
import socket
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service_kit.access import Access
from service_kit.metrics import ServiceMetrics
from service_kit.serving import Endpoint, StartError, Watched, check_ports, connect_store, serve_until_stopped
from service_kit.settings import StoreSettings
from service_kit.traces import Traces
from tests.real_store import free_ports

_PATIENCE_S = 10.0
_OPEN = Access(credentials=None, interceptor=None)
_SERVING = health_pb2.HealthCheckResponse.SERVING


_WATCHED = Watched(ServiceMetrics("x"), Traces(None, lambda: None))


def _endpoint(
    address: str = "127.0.0.1:0", health_address: str = "127.0.0.1:0", metrics_address: str = "127.0.0.1:0"
) -> Endpoint:
    return Endpoint(
        address,
        "PERSONAE_X_ADDRESS",
        health_address,
        "PERSONAE_X_HEALTH_ADDRESS",
        reflection=True,
        metrics_address=metrics_address,
        metrics_variable="PERSONAE_X_METRICS_ADDRESS",
    )


def _scraped(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=_PATIENCE_S) as answer:
        return str(answer.read().decode())


async def _health(address: str) -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service="x.Service")
        answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=_PATIENCE_S)
        return int(answer.status)


def test_the_ready_line_says_where_all_three_ports_are_and_they_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def run() -> None:
        stopping, ready = asyncio.Event(), asyncio.Event()

        async def watch_output() -> None:
            printed = ""
            while "\n" not in printed:
                await asyncio.sleep(0.01)
                printed += capsys.readouterr().out
            line = json.loads(printed)
            assert line["event"] == "serving"
            assert await _health(line["address"]) == await _health(line["health_address"]) == _SERVING
            found = await asyncio.to_thread(_scraped, line["metrics_address"])
            assert "personae_build_info{" in found
            assert "process_resident_memory_bytes" in found
            ready.set()
            stopping.set()

        watching = asyncio.create_task(watch_output())
        async with asyncio.timeout(_PATIENCE_S):
            await serve_until_stopped(_endpoint(), lambda server: None, ["x.Service"], 0.1, stopping, _OPEN, _WATCHED)
            await watching
        assert ready.is_set()

    asyncio.run(run())


@pytest.mark.parametrize("taken", ["address", "health_address", "metrics_address"])
def test_a_port_that_is_taken_stops_the_start_and_names_its_variable(taken: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        endpoint = _endpoint(**{taken: address})
        variable = getattr(endpoint, taken.replace("address", "variable"))
        with pytest.raises(StartError, match=f"{variable}={address}"):
            check_ports(endpoint)
        with pytest.raises(StartError, match=f"{variable}={address}"):
            asyncio.run(serve_until_stopped(endpoint, lambda server: None, [], 0.1, asyncio.Event(), _OPEN, _WATCHED))


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "localhost:0", "0.0.0.0:0"])
def test_free_ports_of_every_kind_of_host_are_fine(address: str) -> None:
    check_ports(_endpoint(address))


def test_an_empty_metrics_address_serves_none(capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        stopping = asyncio.Event()
        stopping.set()
        endpoint = _endpoint(metrics_address="")
        check_ports(endpoint)
        await serve_until_stopped(endpoint, lambda server: None, [], 0.1, stopping, _OPEN, _WATCHED)

    asyncio.run(run())
    assert "metrics_address" not in json.loads(capsys.readouterr().out)


def test_a_store_that_is_away_stops_the_start_after_its_patience() -> None:
    settings = StoreSettings(s3_endpoint=f"http://127.0.0.1:{free_ports(1)[0]}", s3_patience_s=0.1)
    with pytest.raises(StartError, match=r"PERSONAE_S3_ENDPOINT=.* is not reachable"):
        asyncio.run(connect_store(settings))


def test_a_store_address_that_is_none_stops_the_start() -> None:
    with pytest.raises(StartError, match="PERSONAE_S3_ENDPOINT"):
        asyncio.run(connect_store(StoreSettings(s3_endpoint="localhost:9000")))
