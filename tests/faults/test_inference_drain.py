"""SIGTERM to the inference service under load: no call of a client fails, every image comes once."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import personae
from personae.v1 import inference_pb2 as pb
from personae.v1.inference_pb2_grpc import InferenceServiceStub
from tests.faults.modelled import ANSWER_WITHIN_S, modelled_service
from tests.real_store import RealStore, free_ports
from tests.service_process import ServiceProcess, service_environment

pytestmark = pytest.mark.faults

DRAIN_S = 4.0
STEPS = 3
# An image of so many steps takes more than 0.15 s, so all of them take more than twice the drain.
LONG_STEPS, LONG = 15, list(range(1, 65))


@pytest.fixture(scope="module")
def target(real_store: RealStore, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[tuple[str, ServiceProcess]]":
    """Two servers behind one name, and the first of them."""
    folder, drain = tmp_path_factory.mktemp("two"), str(DRAIN_S)
    with (
        modelled_service(real_store, folder, "first", PERSONAE_INFERENCE_DRAIN_S=drain) as first,
        modelled_service(real_store, folder, "second", PERSONAE_INFERENCE_DRAIN_S=drain) as second,
    ):
        yield f"ipv4:{first.address},{second.address}", first


class Load:
    """Callers, each in a thread with a client of its own, until told to stop. `calls`: how many were answered."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._over = threading.Event()
        self.calls = 0

    def generate(self, caller: int) -> None:
        """Ask for images, and look whether each came once and is what it was before."""
        digests: dict[int, str] = {}
        with personae.Client(inference=self._address) as client:
            while not self._over.is_set():
                seeds = [100 * caller + place for place in range(5)]
                images = list(client.generate("a red hat", seeds=seeds, steps=STEPS))
                assert sorted(image.seed for image in images) == seeds
                assert sorted(image.index for image in images) == list(range(5))
                for image in images:
                    assert digests.setdefault(image.seed, image.digest) == image.digest
                self.calls += 1

    def ask(self, caller: int) -> None:
        """Short calls, as fast as they are answered."""
        with personae.Client(inference=self._address) as client:
            while not self._over.is_set():
                list(client.served_adapters())
                self.calls += 1

    def long(self, caller: int) -> list[int]:
        """The seeds of the images of one call that outlasts any drain."""
        with personae.Client(inference=self._address) as client:
            return [image.seed for image in client.generate("a blue hat", seeds=LONG, steps=LONG_STEPS)]

    def during(self, fault: Callable[[], None]) -> list[int]:
        """Put on the load, let the fault happen, see that calls are answered after it; what `long` brought."""
        with ThreadPoolExecutor(9) as callers:
            working = [callers.submit(self.generate, caller) for caller in range(4)]
            working += [callers.submit(self.ask, caller) for caller in range(4)]
            long = callers.submit(self.long, 8)
            try:
                self._until_answered(40)
                fault()
                self._until_answered(40)
                seeds = long.result()
            finally:
                self._over.set()
            for caller in working:
                caller.result()
            return seeds

    def _until_answered(self, count: int) -> None:
        enough, give_up_s = self.calls + count, time.monotonic() + 2 * ANSWER_WITHIN_S
        while self.calls < enough:
            assert time.monotonic() < give_up_s, "no calls are answered"
            time.sleep(0.05)


def terminated(service: ServiceProcess) -> None:
    """SIGTERM; it must leave by itself, in time and with 0."""
    begun_s = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    # Who is impatient changes nothing.
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(ANSWER_WITHIN_S) == 0
    assert time.monotonic() - begun_s < DRAIN_S + 10


@pytest.mark.slow
def test_one_of_two_servers_is_drained_and_no_caller_notices(target: tuple[str, ServiceProcess]) -> None:
    address, first = target
    assert sorted(Load(address).during(lambda: terminated(first))) == LONG
    assert "Traceback" not in first.log.read_text()


@pytest.mark.slow
def test_the_only_server_is_restarted_on_its_port_and_no_caller_notices(real_store: RealStore, tmp_path: Path) -> None:
    address, health = (f"127.0.0.1:{port}" for port in free_ports(2))
    fixed = {
        "PERSONAE_INFERENCE_ADDRESS": address,
        "PERSONAE_INFERENCE_HEALTH_ADDRESS": health,
        "PERSONAE_INFERENCE_DRAIN_S": str(DRAIN_S),
    }
    over = threading.Event()
    with modelled_service(real_store, tmp_path, "old", **fixed) as old, ThreadPoolExecutor(1) as successor:

        def serve_again() -> None:
            with modelled_service(real_store, tmp_path, "new", **fixed):
                over.wait()

        def restarted() -> None:
            terminated(old)
            running.append(successor.submit(serve_again))

        running = []
        try:
            assert sorted(Load(address).during(restarted)) == LONG
        finally:
            over.set()
        running[0].result()


@pytest.mark.slow
def test_a_stream_that_outlasts_the_drain_is_told_to_come_back(real_store: RealStore, tmp_path: Path) -> None:
    with (
        modelled_service(real_store, tmp_path, PERSONAE_INFERENCE_DRAIN_S="1") as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        prompts = [pb.GenerateRequest.Prompt(text="a red hat", seeds=LONG)]
        call = InferenceServiceStub(channel).Generate(
            pb.GenerateRequest(prompts=prompts, steps=LONG_STEPS), timeout=ANSWER_WITHIN_S
        )
        next(call)
        service.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        status = rpc_status.from_call(caught.value)
        assert status is not None
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        assert status.details[0].Unpack(info)
        assert status.details[1].Unpack(retry)
        assert (caught.value.code(), info.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert service.process.wait(ANSWER_WITHIN_S) == 0


def test_a_signal_during_the_start_ends_it_at_once(real_store: RealStore, tmp_path: Path) -> None:
    # Nobody listens there, so the start waits for its store.
    away = {"PERSONAE_S3_ENDPOINT": f"http://127.0.0.1:{free_ports(1)[0]}", "PERSONAE_S3_PATIENCE_S": "600"}
    log = tmp_path / "inference.log"
    with log.open("w") as errors:
        starting = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.modelled_service"],
            env=service_environment(real_store, **away),
            stderr=errors,
        )
    try:
        give_up_s = time.monotonic() + ANSWER_WITHIN_S
        while "waiting for the object store" not in log.read_text():
            assert time.monotonic() < give_up_s
            time.sleep(0.05)
        starting.send_signal(signal.SIGTERM)
        assert starting.wait(10) == 0
    finally:
        starting.kill()
        starting.wait()
    assert "Traceback" not in log.read_text()
