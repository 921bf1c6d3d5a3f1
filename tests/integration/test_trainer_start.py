"""A trainer service that cannot start says at once why, and which variable to change."""

import socket
import subprocess
import sys
import time

import pytest

from base_models.catalog import BUNDLED
from tests.real_store import RealStore, free_ports
from tests.service_process import service_environment


def failed_start(environment: dict[str, str]) -> str:
    """What a service that exits with status 1 says last."""
    started = subprocess.run(
        [sys.executable, "-m", "trainer_service"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert started.returncode == 1, started.stderr
    assert started.stdout == ""
    assert "Traceback" not in started.stderr
    return started.stderr.strip().splitlines()[-1]


def test_a_taken_port_is_named_with_its_variable(real_store: RealStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = failed_start(service_environment(real_store, PERSONAE_TRAINER_ADDRESS=address))
    assert f"PERSONAE_TRAINER_ADDRESS={address}" in said
    assert "taken" in said


def test_a_store_that_is_not_there_is_named_with_its_variable(real_store: RealStore) -> None:
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    environment = service_environment(real_store, PERSONAE_S3_ENDPOINT=endpoint, PERSONAE_S3_PATIENCE_S="1")
    began_s = time.monotonic()
    assert f"PERSONAE_S3_ENDPOINT={endpoint} is not reachable" in failed_start(environment)
    assert time.monotonic() - began_s < 30


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PERSONAE_S3_SECRET_KEY", "wrong", "refuses"),
        ("PERSONAE_S3_BUCKET", "nowhere", "does not exist"),
        ("PERSONAE_S3_ENDPOINT", "not a url", "allowed is http://host:port"),
        ("PERSONAE_TRAINER_ADDRESS", "50051", "allowed is host:port"),
        ("PERSONAE_TRAINER_WORKERS", "many", "PERSONAE_TRAINER_WORKERS"),
        ("PERSONAE_TRAINER_WORKER", "1", "unknown"),
        ("PERSONAE_BASE_MODELS", "sd15", "give its folder"),
        ("PERSONAE_EXECUTOR", "kubernetes", "PERSONAE_KUBERNETES_JOB_TEMPLATE"),
        ("PERSONAE_DINOV2_FOLDER", "/nowhere", "PERSONAE_DINOV2_FOLDER"),
        ("PERSONAE_CLIP_FOLDER", str(BUNDLED["toon-64"] / "text_encoder"), "holds a 'clip_text_model'"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_is_named(
    real_store: RealStore, variable: str, value: str, words: str
) -> None:
    said = failed_start(service_environment(real_store, **{variable: value}))
    assert words in said
