"""A service starts from exactly the files that its image would hold, in the environment that its manifest gives it.

The files are laid out under a temporary folder. Python runs without its `site` module there, so that the repository,
which the test environment has installed in place, cannot fill a gap.
"""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.manifests.image_files import Dockerfile, build
from tests.manifests.rendered import BASE, Workload, workload_of
from tests.real_store import RealStore, free_ports

_START_S = 120.0
pytestmark = pytest.mark.slow

each_service = pytest.mark.parametrize("service", ["trainer", "inference"])


@dataclass(frozen=True)
class Image:
    """An image's files below `root`, with the manifest of the pod that would run it."""

    root: Path
    dockerfile: Dockerfile
    workload: Workload

    def files(self) -> set[Path]:
        return set((self.root / "app").rglob("*"))

    def command(self, *module: str) -> list[str]:
        """The entry point's command, or one for another module."""
        python, dash_m, entry = self.dockerfile.entry_point()
        assert (python, dash_m) == ("python", "-m")
        return [sys.executable, "-S", "-m", *(module or (entry,))]

    def environment(self, endpoint: dict[str, str]) -> dict[str, str]:
        """The image's and the manifest's variables, on free ports and with folders below the root."""
        image = self.dockerfile.environment()
        assert image["PYTHONPATH"] == "/app"
        packages = sysconfig.get_path("purelib")
        here = {"PYTHONPATH": f"{self.root}/app:{packages}", "HOME": f"{self.root}/tmp", "PATH": os.environ["PATH"]}
        pod = self.workload.environment()
        for key in ("PERSONAE_S3_ACCESS_KEY", "PERSONAE_S3_SECRET_KEY"):
            # As the Secret would be mounted: the settings refuse a key that is given twice.
            file = Path(f"{self.root}{pod[f'{key}_FILE']}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(endpoint.get(key, "none"))
        for name, value in pod.items():
            if name.endswith("_ADDRESS"):
                pod[name] = "127.0.0.1:0"
            elif value.startswith("/"):
                pod[name] = f"{self.root}{value}"
        rest = {name: value for name, value in endpoint.items() if f"{name}_FILE" not in pod}
        return image | here | pod | rest


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """Both images, laid out once."""
    found: dict[str, Image] = {}
    for service in ("trainer", "inference"):
        root = tmp_path_factory.mktemp(service)
        (root / "tmp").mkdir()
        found[service] = Image(root, Dockerfile.read(service), workload_of(BASE, service))
        build(found[service].dockerfile, root)
    return found


@contextmanager
def running(image: Image, store: RealStore) -> Iterator[str]:
    """The entry point against a real store; yields its health address once it serves."""
    # Workers are another command, and would be started with the repository in reach.
    environment = image.environment(store.environment()) | {"PERSONAE_TRAINER_WORKERS": "0"}
    log = image.root / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            image.command(),
            cwd=image.root / "app",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()[-3000:]
        yield json.loads(line)["health_address"]
        process.terminate()
        assert process.wait(_START_S) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@each_service
def test_without_a_store_the_entry_point_says_so_and_exits_with_1(images: dict[str, Image], service: str) -> None:
    image = images[service]
    before = image.files()
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    started = subprocess.run(
        image.command(),
        cwd=image.root / "app",
        env=image.environment({"PERSONAE_S3_ENDPOINT": endpoint, "PERSONAE_S3_PATIENCE_S": "0.1"}),
        capture_output=True,
        text=True,
        timeout=_START_S,
        check=False,
    )
    assert started.returncode == 1, started.stderr
    assert f"cannot start: PERSONAE_S3_ENDPOINT={endpoint} is not reachable" in started.stderr
    assert "Traceback" not in started.stderr
    # The image's file system is read-only.
    assert image.files() == before


@each_service
def test_the_probes_of_the_manifest_find_the_service_serving(
    images: dict[str, Image], service: str, real_store: RealStore
) -> None:
    image = images[service]
    before = image.files()
    with running(image, real_store) as health_address, grpc.insecure_channel(health_address) as channel:
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = health_pb2.HealthCheckRequest(service=image.workload.server[name]["grpc"].get("service", ""))
            answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert image.files() == before


def test_a_worker_starts_from_the_files_of_the_trainer_s_image(images: dict[str, Image]) -> None:
    image = images["trainer"]
    started = subprocess.run(
        image.command("trainer_service.worker"),
        cwd=image.root / "app",
        env=image.environment({}),
        # The order to stop.
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_START_S,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    assert json.loads(started.stdout)["ready"]
