"""What stops `python -m inference_service` from starting, and what it says then."""

import os
import subprocess
import sys

import pytest

from inference_service.settings import OTHER_PROCESSES, InferenceSettings
from service_kit.settings import SettingsError, read_settings


def test_the_defaults_are_those_of_the_documentation() -> None:
    others = {"PERSONAE_TRAINER_WORKERS": "of another process", "PERSONAE_CLIP_FOLDER": "/of/another/process"}
    settings = read_settings(InferenceSettings, others, OTHER_PROCESSES)
    assert settings.inference_address == "127.0.0.1:50052"
    assert settings.inference_health_address == "127.0.0.1:50062"
    assert settings.store.s3_endpoint == "http://127.0.0.1:9000"


def test_everything_wrong_with_the_environment_is_named() -> None:
    environment = {
        "PERSONAE_INFERENCE_BATCH_SIZE": "0",
        "PERSONAE_INFERENCE_QUEUE_COST": "10",
        "PERSONAE_INFERENCE_ADDRESS": "localhost",
        "PERSONAE_INFERENCE_BATCHSIZE": "4",
    }
    with pytest.raises(SettingsError) as caught:
        read_settings(InferenceSettings, environment, OTHER_PROCESSES)
    for name in environment:
        assert name in str(caught.value)


def test_a_base_model_that_is_not_there_stops_the_start_and_names_the_variable() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PERSONAE_")}
    # Taken ports are what it would name first.
    environment |= {f"PERSONAE_INFERENCE_{kind}ADDRESS": "127.0.0.1:0" for kind in ("", "HEALTH_", "METRICS_")}
    ended = subprocess.run(
        [sys.executable, "-m", "inference_service"],
        env=environment | {"PERSONAE_BASE_MODELS": "attacker/repo"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "PERSONAE_BASE_MODELS" in ended.stderr
    assert "Traceback" not in ended.stderr
