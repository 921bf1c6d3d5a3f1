"""A server that died without a word is noticed within ten seconds; one that is only quiet is left in peace."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import personae
from personae.connection import CHANNEL_OPTIONS
from service_kit import serving

NOTICED_S = 10.0
# With less than three pings nobody would be told that they are too many.
QUIET_S = 20.0
# The first failure is the last.
IMPATIENT = personae.Patience(unanswered_s=0, outage_s=0)


@contextmanager
def quiet_server(seconds: float) -> Iterator[subprocess.Popen[str]]:
    """The process, serving; its next line is the port."""
    command = [sys.executable, Path(__file__).with_name("quiet_server.py"), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server
        finally:
            server.kill()


def test_pings_find_a_dead_server_in_time_and_are_no_more_than_the_services_take():
    client, server = dict(CHANNEL_OPTIONS), dict(serving._OPTIONS)
    for answer in ("grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"):
        assert client["grpc.keepalive_time_ms"] + client[answer] < 1000 * NOTICED_S
    assert client["grpc.keepalive_time_ms"] > server["grpc.http2.min_recv_ping_interval_without_data_ms"]
    assert client["grpc.http2.max_pings_without_data"] == 0


@pytest.mark.slow
def test_a_server_that_freezes_is_noticed_within_ten_seconds(connect):
    with quiet_server(3600) as server, ThreadPoolExecutor(1) as threads:
        address = f"127.0.0.1:{server.stdout.readline().strip()}"
        with connect(inference=address, patience=IMPATIENT) as client:
            asking = threads.submit(lambda: next(client.generate("a")))
            assert server.stdout.readline() == "asked\n"
            server.send_signal(signal.SIGSTOP)
            frozen = time.monotonic()
            with pytest.raises(personae.Unavailable):
                asking.result(60)
            assert time.monotonic() - frozen < NOTICED_S


@pytest.mark.slow
def test_a_quiet_server_is_not_given_up_and_takes_the_pings(connect):
    with quiet_server(QUIET_S) as server:
        address = f"127.0.0.1:{server.stdout.readline().strip()}"
        with connect(inference=address, patience=IMPATIENT) as client:
            assert len(list(client.generate("a"))) == 1
