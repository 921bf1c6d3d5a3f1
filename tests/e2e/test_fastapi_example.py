"""The FastAPI example as its README starts it: uvicorn on a port, real services behind it, a real short training."""

import base64
import hashlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from base_models.catalog import BUNDLED
from personae.cli import local_stack
from tests.real_store import free_ports

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi"
PICTURES = BUNDLED["toon-64"] / "sets" / "toon-a" / "train"
START_S, CALL_S = 60.0, 300.0

Event = tuple[str, str, dict[str, object]]
"""Its id, its kind, its data."""


@pytest.fixture(scope="module")
def backend(stack: local_stack.Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the backend serves."""
    yield from served(tmp_path_factory.mktemp("backend"), stack.trainer, stack.inference)


def served(folder: Path, trainer: str, inference: str) -> Iterator[str]:
    (port,) = free_ports(1)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PERSONAE_")}
    addresses = {"PERSONAE_TRAINER_ADDRESS": trainer, "PERSONAE_INFERENCE_ADDRESS": inference}
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLE), "backend:app", "--port", str(port)]
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=inherited | addresses, stdout=output, stderr=output)
    try:
        give_up = time.monotonic() + START_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(START_S)


def events(response: httpx2.Response) -> Iterator[Event]:
    assert response.status_code == 200, response.read()
    for event in httpx2.EventSource(response):
        yield event.id, event.event, json.loads(event.data)


def sent(*paths: Path) -> list[tuple[str, tuple[str, bytes]]]:
    return [("pictures", (path.name, path.read_bytes())) for path in paths]


@pytest.fixture(scope="module")
def training(backend: str) -> str:
    """The path of the events of a training that the backend was asked for, with one file that is no picture."""
    files = [*sent(*sorted(PICTURES.iterdir())), ("pictures", ("../../etc/torn.png", b"\x89PNG torn"))]
    answer = httpx2.post(f"{backend}/characters/from-web/trainings", files=files, data={"steps": "2"}, timeout=CALL_S)
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert told["accepted"] == 16
    assert [found["file"] for found in told["rejected"]] == ["torn.png"]
    assert answer.headers["Location"] == told["events"]
    return str(told["events"])


@pytest.mark.slow
def test_progress_is_a_stream_of_events_that_a_browser_takes_up_where_it_was(backend: str, training: str) -> None:
    with httpx2.stream("GET", backend + training, timeout=CALL_S) as response:
        seen = list(events(response))
    assert [int(number) for number, _, _ in seen] == list(range(1, len(seen) + 1))
    assert seen[-1][1] == "Ended"
    assert seen[-1][2]["state"] == "succeeded"
    (sample,) = {str(data["src"])[:22] for _, kind, data in seen if kind == "SampleReady"}
    assert sample == "data:image/png;base64,"

    middle = len(seen) // 2
    with httpx2.stream("GET", backend + training, headers={"Last-Event-ID": str(middle)}, timeout=CALL_S) as response:
        assert list(events(response)) == seen[middle:]


@pytest.mark.slow
def test_each_image_comes_as_an_event_that_a_page_can_show(backend: str, training: str) -> None:
    with httpx2.stream("GET", backend + training, timeout=CALL_S) as response:
        assert list(events(response))[-1][2]["adapter"]
    wanted = {"scenes": ["happy, blue background", "sad"], "images_per_scene": 2}
    with httpx2.stream("POST", f"{backend}/characters/from-web/images", json=wanted, timeout=CALL_S) as response:
        *images, (_, last, _) = events(response)
    assert last == "done"
    assert sorted(int(str(data["index"])) for _, _, data in images) == [0, 1, 2, 3]
    for _, kind, data in images:
        assert (kind, data["filtered"]) == ("image", False)
        file = base64.b64decode(str(data["src"]).removeprefix("data:image/png;base64,"))
        assert hashlib.sha256(file).hexdigest() == data["digest"]
        with Image.open(io.BytesIO(file)) as picture:
            assert (picture.format, picture.size) == ("PNG", (64, 64))


@pytest.mark.parametrize("path", ["/trainings/there-is-none/events", "/characters/there-is-none/images"])
def test_what_there_is_not_is_404_also_where_a_stream_was_asked_for(backend: str, path: str) -> None:
    method = "GET" if path.endswith("events") else "POST"
    answer = httpx2.request(method, backend + path, json={"scenes": ["happy"]}, timeout=CALL_S)
    assert answer.status_code == 404
    assert answer.json()["error"] == "NotFound"


def test_everything_that_is_wrong_with_a_request_is_422_field_by_field(backend: str) -> None:
    data = {"steps": "-1", "class_noun": "x" * 1000}
    files = sent(*sorted(PICTURES.iterdir())[:6])
    answer = httpx2.post(f"{backend}/characters/Not%20An%20Id/trainings", files=files, data=data, timeout=CALL_S)
    assert answer.status_code == 422
    fields = {found["field"] for found in answer.json()["violations"]}
    assert fields >= {"training.adapter_id", "training.config.steps"}


def test_files_that_are_no_pictures_are_named_and_nothing_is_uploaded(backend: str) -> None:
    files = [("pictures", ("notes.pdf", b"%PDF")), ("pictures", ("a.png", b"x")), ("pictures", ("b/a.png", b"x"))]
    answer = httpx2.post(f"{backend}/characters/mixed/trainings", files=files, timeout=CALL_S)
    assert answer.status_code == 422
    told = " ".join(found["description"] for found in answer.json()["violations"])
    assert "'notes.pdf'" in told
    assert "'a.png' comes twice" in told


def test_a_body_that_is_too_large_is_refused_before_it_is_read(backend: str) -> None:
    claimed = {"Content-Length": str(2**40), "Content-Type": "multipart/form-data; boundary=x"}
    with socket.create_connection(tuple(backend.removeprefix("http://").split(":")), 10) as connection:
        lines = [
            "POST /characters/large/trainings HTTP/1.1",
            "Host: x",
            *(f"{name}: {value}" for name, value in claimed.items()),
        ]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_services_that_are_away_are_503_with_a_time_to_come_back(tmp_path: Path) -> None:
    trainer, inference = free_ports(2)
    for backend in served(tmp_path, f"127.0.0.1:{trainer}", f"127.0.0.1:{inference}"):
        answer = httpx2.get(f"{backend}/trainings/any/events", timeout=CALL_S)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1


def test_the_requirements_are_what_is_tested_here() -> None:
    pinned = re.findall(
        r'"((?:fastapi|python-multipart|uvicorn)==[^"]+)"', (EXAMPLE.parents[1] / "pyproject.toml").read_text()
    )
    assert (EXAMPLE / "requirements.txt").read_text().split() == sorted(pinned)
