"""`personae up`: lines where programs read its output, a panel on a terminal; services here are a few lines each."""

import io
import json
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from command_process import command, environment, on_a_terminal
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, Gauge
from rich.console import Console

from personae.cli.local_stack import Running
from personae.cli.status_panel import StatusPanel
from service_kit.metrics import MetricsServer
from trainer_service.metrics import TrainerMetrics

SERVING = """
import json, time
print(json.dumps({"event": "serving", "address": "127.0.0.1:7", "health_address": "127.0.0.1:1"}), flush=True)
time.sleep(600)
"""
ADDRESSES = ("trainer", "inference", "trainer-health", "inference-health", "trainer-metrics", "inference-metrics")
WORDS = ["up", *(word for name in ADDRESSES for word in (f"--{name}", "127.0.0.1:0"))]
WITHIN_S = 60


@pytest.fixture
def checkout(tmp_path):
    """The environment of a command whose checkout has services that only say that they serve, on another's store."""
    for service in ("trainer_service", "inference_service"):
        (tmp_path / service).mkdir()
        (tmp_path / service / "__init__.py").touch()
        (tmp_path / service / "__main__.py").write_text(SERVING)
    root = Path(__file__).parents[3]
    return environment(
        # Without the first, the folder that the tests are run from would come before all.
        PYTHONSAFEPATH="1",
        PYTHONPATH=f"{tmp_path}:{root / 'client'}:{root}",
        PERSONAE_S3_ENDPOINT="http://127.0.0.1:9",
        TERM="xterm-256color",
    )


def test_away_from_a_terminal_it_prints_lines_and_names_the_logs(checkout, tmp_path):
    with command(*WORDS, env=checkout) as process:
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WITHIN_S)
    assert lines == ["trainer    127.0.0.1:7\n", "inference  127.0.0.1:7\n", "store      http://127.0.0.1:9\n"]
    assert (process.returncode, out) == (130, "")
    for service in ("trainer_service", "inference_service"):
        assert f"log of {service}: {tmp_path / '.local' / 'logs' / service}.log" in err


def test_json_says_once_where_everything_is(checkout, tmp_path):
    with command(*WORDS, "--json", env=checkout) as process:
        told = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WITHIN_S)
    logs = {name: f"{tmp_path / '.local' / 'logs' / name}.log" for name in ("trainer_service", "inference_service")}
    where = {"trainer": "127.0.0.1:7", "inference": "127.0.0.1:7", "store": "http://127.0.0.1:9"}
    assert told == {"event": "serving", **where, "logs": logs}
    assert (process.returncode, out, json.loads(err)["error"]["exit_code"]) == (130, "", 130)


def test_on_a_terminal_it_shows_a_panel(checkout):
    code, said = on_a_terminal(*WORDS, env=checkout, until="Ctrl-C stops everything")
    assert code == 130
    for text in ("Personae, up for 0:", "unreachable", "yours", "127.0.0.1:7", "log of trainer_service"):
        assert text in said


def shown(panel):
    screen = Console(file=io.StringIO(), width=140)
    screen.print(panel.drawn())
    return [" ".join(line.strip("│ \n").split()) for line in screen.file.getvalue().splitlines()]


@contextmanager
def metrics_of(name):
    """The page of a service's metrics with some numbers."""
    registry = CollectorRegistry()
    if name == "trainer":
        metrics = TrainerMetrics(registry)
        metrics.running.set(1)
        metrics.workers.set(2)
        metrics.waiting.set(3)
        metrics.steps_per_second.set(2.5)
    else:
        Gauge("personae_inference_requests_open", "As the service has it.", registry=registry).set(4)
        Gauge("personae_inference_images_waiting", "As the service has it.", registry=registry).set(12)
    server = MetricsServer(registry, "127.0.0.1:0")
    try:
        yield server.address
    finally:
        server.close()


def test_the_panel_tells_states_and_what_is_done():
    server, servicer = grpc.server(ThreadPoolExecutor(2)), health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    servicer.set("personae.v1.TrainerService", health_pb2.HealthCheckResponse.SERVING)
    servicer.set("personae.v1.InferenceService", health_pb2.HealthCheckResponse.NOT_SERVING)
    at = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with metrics_of("trainer") as trainer, metrics_of("inference") as inference:
        announced = {
            "trainer_service": {"address": at, "health_address": at, "metrics_address": trainer},
            "inference_service": {"address": at, "health_address": at, "metrics_address": inference},
        }
        try:
            lines = shown(StatusPanel(Running("t:1", "i:1", "http://s", announced, [])))
        finally:
            server.stop(None).wait()
    assert "store yours http://s" in lines
    assert "trainer serving t:1 1 of 2 workers train, 3 trainings wait, 2.5 steps/s" in lines
    assert "inference not serving i:1 4 requests, 12 images to come" in lines
