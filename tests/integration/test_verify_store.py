"""`personae verify-store` and the services' starts, on a store that keeps its promises and on one that does not."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest

from service_kit.store_checks import CHECKS
from tests.integration.test_trainer_start import failed_start
from tests.juicefs_gateway import running_gateway
from tests.real_store import RealStore, free_ports
from tests.service_process import service_environment

# And perhaps the counter: its writers need not meet.
_CONDITIONS = {"create-once", "create-race", "replace-stale", "replace-missing", "replace-race"}
# The service as it is composed, but for the base models, which take seconds to load.
_INFERENCE = """
from functools import partial
from inference_service.__main__ import main
from service_kit.serving import run_service
run_service(partial(main, lambda entries, settings: {}))
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with running_gateway(tmp_path_factory.mktemp("juicefs")) as environment:
        yield environment


def started(environment: Mapping[str, str], *options: str) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PERSONAE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "personae.cli", "verify-store", *options],
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def verified(environment: Mapping[str, str], *options: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    with started(environment, *options) as process:
        out, error = process.communicate(timeout=240)
    assert "Traceback" not in error
    return process.returncode, out, error


def test_a_store_with_atomic_conditions_passes_and_is_left_as_it_was(real_store: RealStore) -> None:
    code, out, _ = verified(real_store.environment(), "--rounds", "1", "--json")
    told = [json.loads(line) for line in out.splitlines()]
    assert [entry["event"] for entry in told] == ["store", *["check"] * len(CHECKS), "verdict"]
    assert {entry["verdict"] for entry in told[1:-1]} == {"passed"}
    assert abs(told[0]["clock_ahead_s"]) < 60
    assert told[-1]["passed"] is True
    assert code == 0
    assert list(real_store.store.keys("verify/")) == []


@pytest.mark.slow
def test_a_store_that_ignores_conditions_is_told_apart_check_by_check(gateway: dict[str, str]) -> None:
    code, out, _ = verified(gateway, "--rounds", "1")
    assert code == 1
    marks = {line.split()[1]: line.split()[0] for line in out.splitlines() if line[0] in "✓✗?"}
    assert marks.keys() == {check.name for check in CHECKS}
    assert {check for check, mark in marks.items() if mark == "✗"} - {"counter"} == _CONDITIONS
    assert {check for check, mark in marks.items() if mark == "✓"} - {"counter"} == marks.keys() - _CONDITIONS - {
        "counter"
    }
    assert "seen: a second create of one key was answered as done" in out
    assert "otherwise two workers would carry out one training" in out
    assert "docs/object-stores.md" in out


def test_a_store_that_is_away_is_named_with_its_variable() -> None:
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    code, out, error = verified({"PERSONAE_S3_ENDPOINT": endpoint, "PERSONAE_S3_PATIENCE_S": "0"})
    assert code == 1
    assert out == ""
    assert f"PERSONAE_S3_ENDPOINT={endpoint} is not reachable" in error


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_behind(real_store: RealStore) -> None:
    with started(real_store.environment(), "--rounds", "1000", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "store"
        assert json.loads(process.stdout.readline())["check"] == "create-once"
        assert list(real_store.store.keys("verify/")) != []
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        process.communicate()
    assert list(real_store.store.keys("verify/")) == []


def test_the_trainer_refuses_to_start_on_a_store_that_fails(real_store: RealStore, gateway: dict[str, str]) -> None:
    said = failed_start(service_environment(real_store) | gateway)
    assert f"PERSONAE_S3_ENDPOINT={gateway['PERSONAE_S3_ENDPOINT']} fails create-once" in said
    assert "docs/object-stores.md" in said


@pytest.mark.slow
def test_the_inference_service_refuses_as_well(real_store: RealStore, gateway: dict[str, str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _INFERENCE],
        env=service_environment(real_store) | gateway,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert f"PERSONAE_S3_ENDPOINT={gateway['PERSONAE_S3_ENDPOINT']} fails create-once" in ended.stderr.splitlines()[-1]


def test_a_start_on_a_good_store_is_delayed_by_less_than_it_takes_to_notice(real_store: RealStore) -> None:
    script = (
        "import asyncio, os, time\n"
        "from service_kit.settings import StoreSettings, read_settings\n"
        "from service_kit.store_at_start import connect_verified_store\n"
        "settings = read_settings(StoreSettings, {k: v for k, v in os.environ.items() if '_S3_' in k}, ())\n"
        "asyncio.run(connect_verified_store(settings))\n"
        "began_s = time.monotonic()\n"
        "asyncio.run(connect_verified_store(settings))\n"
        "print(time.monotonic() - began_s)\n"
    )
    environment = service_environment(real_store)
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    # 0.3 s on two idle cores.
    assert float(ended.stdout) < 5
    assert list(real_store.store.keys("verify/")) == []
