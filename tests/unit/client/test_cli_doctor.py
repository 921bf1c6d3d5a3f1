"""`personae doctor`: each finding is provoked for real, as far as this machine can be brought to it."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from base_models.catalog import BUNDLED
from personae.access import Access, Tls
from personae.cli import doctor, local_stack, machine_findings, service_findings, store_findings, told
from personae.cli.local_stack import Addresses, StackError
from tests.certificates import Authority

TRAINER, INFERENCE = "personae.v1.TrainerService", "personae.v1.InferenceService"
DOWN = {"trainer": "127.0.0.1:1", "inference": "127.0.0.1:1"}
NOWHERE = Addresses("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0")


@contextmanager
def answering(*names, state=health_pb2.HealthCheckResponse.SERVING, healthy=True):
    """A gRPC server that has the health of these services."""
    server = grpc.server(ThreadPoolExecutor(2))
    if healthy:
        servicer = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        for name in names:
            servicer.set(name, state)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextmanager
def listening():
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def web_server(server_version, body):
    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            """Say nothing."""

    Page.server_version = server_version
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def services(**addresses):
    found = service_findings.services(DOWN | addresses, Access())
    return {finding.check: finding for finding in found}


def ports(addresses, local_store=False):
    return {finding.check: finding for finding in service_findings.ports(addresses, Access(), local_store=local_store)}


def test_services_that_serve_are_well():
    with answering(TRAINER) as trainer, answering(INFERENCE) as inference:
        found = services(trainer=trainer, inference=inference)
    assert [finding.verdict for finding in found.values()] == ["ok", "ok"]


def test_nothing_there_is_a_warning_and_half_of_it_is_wrong():
    assert {finding.verdict for finding in services().values()} == {"warning"}
    with answering(TRAINER) as trainer:
        found = services(trainer=trainer)["inference"]
    assert (found.verdict, "see this one's log" in found.remedy) == ("wrong", True)


def test_what_answers_strangely_is_told_apart():
    starting = answering(TRAINER, state=health_pb2.HealthCheckResponse.NOT_SERVING)
    for server, said in (
        (starting, "starts or stops"),
        (answering(INFERENCE), "not this service"),
        (answering(healthy=False), "none of ours"),
    ):
        with server as trainer:
            found = services(trainer=trainer)["trainer"]
        assert (found.verdict, said in found.found) == ("wrong", True), found


def test_a_server_that_hangs_is_wrong(monkeypatch):
    monkeypatch.setattr(service_findings, "_ANSWER_S", 0.3)
    with listening() as trainer:
        found = services(trainer=trainer)["trainer"]
    assert (found.verdict, "answers nothing" in found.found) == ("wrong", True)


def test_a_service_elsewhere_that_does_not_answer_is_wrong():
    # A name that no resolver knows (RFC 6761).
    assert services(trainer="trainer.invalid:50051")["trainer"].verdict == "wrong"


def test_tls_that_does_not_fit_is_wrong(tmp_path):
    (tmp_path / "ca.pem").write_bytes(Authority().pem)
    with answering(TRAINER) as trainer:
        access = Access(Tls(tmp_path / "ca.pem"))
        (found, _) = service_findings.services(DOWN | {"trainer": trainer}, access)
    assert (found.verdict, "TLS" in found.remedy) == ("wrong", True)


def test_a_taken_port_is_wrong_and_says_by_whom_and_what_to_change(monkeypatch):
    monkeypatch.setattr(service_findings, "_ANSWER_S", 0.3)
    with listening() as taken:
        found = ports(Addresses("127.0.0.1:0", taken))["port inference"]
    assert found.verdict == "wrong"
    assert f"{taken} is taken by pid " in found.found
    assert "pytest" in found.found
    assert "--inference or PERSONAE_INFERENCE_ADDRESS" in found.remedy


def test_ports_are_free_ours_malformed_or_elsewhere():
    found = ports(NOWHERE, local_store=True)
    assert {finding.verdict for finding in found.values()} == {"ok"}
    assert list(found) == [
        "port trainer",
        "port inference",
        "port trainer health",
        "port inference health",
        "port store",
    ]
    with answering(TRAINER, INFERENCE) as at, web_server("SeaweedFS x", b"personae_build_info 1") as store:
        metrics = f"127.0.0.1:{store}"
        found = ports(Addresses(at, at, at, at, metrics, metrics, store), local_store=True)
    assert len(found) == 7
    assert all(finding.verdict == "ok" and "in use by ours" in finding.found for finding in found.values()), found
    assert ports(Addresses("here", "example.com:1"))["port trainer"].verdict == "wrong"
    assert "port inference" not in ports(Addresses("here", "example.com:1"))


def test_another_web_server_is_not_our_metrics_and_not_our_store():
    with web_server("nginx", b"hello") as port:
        addresses = Addresses(trainer_metrics=f"127.0.0.1:{port}", store_port=port)
        found = ports(addresses, local_store=True)
    assert [found[f"port {name}"].verdict for name in ("trainer metrics", "store")] == ["wrong", "wrong"]


def models(allowed):
    with told.started("base_models.examination", [allowed], {}) as examination:
        return list(doctor.model_findings(examination))


def test_base_models_are_whole_unknown_no_model_or_damaged(tmp_path):
    copy = tmp_path / "copy"
    for path in BUNDLED["toon-64"].rglob("*"):
        place = copy / path.relative_to(BUNDLED["toon-64"])
        if path.is_file() and path.suffix in (".json", ".txt", ".safetensors") and "sets" not in path.parts:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    (weights,) = (copy / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1000])
    (copy / "vae" / "config.json").rename(copy / "vae" / "config.json.away")
    found = models(f"toon-64,sdxl,mine={tmp_path}")
    assert [(finding.check, finding.verdict) for finding in found] == [
        ("base model toon-64", "ok"),
        ("base model sdxl", "wrong"),
        ("base model mine", "wrong"),
    ]
    (copy / "vae" / "config.json.away").rename(copy / "vae" / "config.json")
    for path in (copy / "text_encoder").glob("*.safetensors"):
        path.unlink()
    (damaged,) = models(f"mine={copy}")
    assert damaged.verdict == "wrong"
    assert f"{weights}: holds" in damaged.found
    assert f"no safetensors weights are in {copy / 'text_encoder'}" in damaged.found
    weights.rename(copy / "toon.safetensors").write_bytes(
        (BUNDLED["toon-64"] / "unet" / weights.name).read_bytes(),
    )
    (single,) = models(f"mine={copy}")
    assert single.verdict == "ok"
    assert "brought into parts at the first start" in single.found


def test_torch_and_gpus():
    gpu = {"name": "H200", "memory_bytes": 140 * 2**30, "free_bytes": 139 * 2**30, "bfloat16": True}
    whole = {"version": "2.13.0", "cuda": "13.0", "problem": "", "devices": [gpu]}
    for change, driver, check, verdict in (
        ({}, True, "gpu 0", "ok"),
        ({"devices": [gpu | {"bfloat16": False}]}, True, "gpu 0", "warning"),
        ({"devices": [gpu | {"free_bytes": 2**30}]}, True, "gpu 0", "warning"),
        ({"devices": []}, True, "gpu", "wrong"),
        ({"devices": [], "cuda": None}, True, "gpu", "wrong"),
        ({"devices": [], "cuda": None}, False, "gpu", "ok"),
        ({"devices": [], "problem": "driver mismatch"}, True, "gpu", "wrong"),
        ({"version": None, "problem": "No module named 'torch'"}, False, "torch", "wrong"),
    ):
        found = {finding.check: finding for finding in machine_findings.torch(whole | change, driver)}
        assert found[check].verdict == verdict
        assert bool(found[check].remedy) == (verdict != "ok")


def test_little_memory_a_full_disk_and_a_wrong_clock():
    assert machine_findings.memory(2**30).verdict == "warning"
    assert [machine_findings.disk(size, Path("/x")).verdict for size in (2**40, 2**30, 2**20)] == [
        *("ok", "warning", "wrong")
    ]
    assert [store_findings.clock(ahead_s).verdict for ahead_s in (-1, -100, 1000)] == ["ok", "warning", "wrong"]


def test_a_local_store_needs_its_program(monkeypatch, tmp_path):
    assert store_findings.local().verdict == "ok"
    monkeypatch.setattr(store_findings.sys, "executable", str(tmp_path / "python"))
    assert (store_findings.local().verdict, "make demo" in store_findings.local().remedy) == ("wrong", True)


def test_without_a_checkout_only_the_client_is_looked_at(personae_command, monkeypatch):
    def missing():
        raise StackError("none")

    monkeypatch.setattr(doctor, "checkout", missing)
    with answering(TRAINER) as trainer, answering(INFERENCE) as inference:
        words = ["--trainer", trainer, "--inference", inference]
        code, out, err = personae_command("doctor", *words, "--json")
        findings = {finding["check"]: finding for finding in json.loads(out)["findings"]}
        assert (code, err, json.loads(out)["ok"]) == (0, "", True)
        assert findings.keys() == {
            *("python", "platform", "processors", "memory", "disk", "services", "trainer", "inference")
        }
        code, out, _ = personae_command("doctor", "--trainer", inference, "--inference", inference)
        failed = personae_command("doctor", "--trainer", inference, "--inference", inference, "--json")
    assert (failed[0], json.loads(failed[1])["ok"], failed[2]) == (1, False, "")
    assert code == 1
    assert "✗ trainer" in out
    assert "→ are --trainer and --inference the other way round?" in out
    assert out.rstrip().endswith("1 wrong.")
    assert local_stack.checkout()
