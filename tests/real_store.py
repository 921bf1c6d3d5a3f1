"""A real S3 server (SeaweedFS) for tests, on free loopback ports, with its data in a folder of the caller's.

Its one rule: whatever happens, the process is gone when the block is left.
"""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from service_kit.minio_store import MinioStore
from service_kit.store import StoreError

_ACCESS_KEY, _SECRET_KEY, _BUCKET, _REGION = "personae", "for-tests-only", "personae", "us-east-1"
_READY_WITHIN_S = 60.0
_LOOK_AGAIN_S = 0.2
_STOP_WITHIN_S = 3.0
_PORTS = ("master", "volume", "filer", "s3")


@dataclass(frozen=True)
class RealStore:
    """Where the server listens, and a store connected to its bucket."""

    endpoint: str
    store: MinioStore
    server: "StoreServer"

    def environment(self) -> dict[str, str]:
        """What a service needs in its environment to use it."""
        return {
            "PERSONAE_S3_ENDPOINT": self.endpoint,
            "PERSONAE_S3_ACCESS_KEY": _ACCESS_KEY,
            "PERSONAE_S3_SECRET_KEY": _SECRET_KEY,
            "PERSONAE_S3_BUCKET": _BUCKET,
            "PERSONAE_S3_REGION": _REGION,
        }


def connect(endpoint: str) -> MinioStore:
    """A store with the server's credentials, at this address."""
    return MinioStore(endpoint, _ACCESS_KEY, _SECRET_KEY, _BUCKET, _REGION)


def free_ports(count: int) -> list[int]:
    """Distinct ports that nothing listens on."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for taken in sockets:
            taken.bind(("127.0.0.1", 0))
        return [int(taken.getsockname()[1]) for taken in sockets]


class StoreServer:
    """The server's process, which can be killed and started again on the same ports and data."""

    def __init__(self, folder: Path) -> None:
        credentials = {"accessKey": _ACCESS_KEY, "secretKey": _SECRET_KEY}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "tests", "credentials": [credentials], "actions": actions}
        config, data, self._log = folder / "s3.json", folder / "data", folder / "weed.log"
        config.write_text(json.dumps({"identities": [identity]}))
        data.mkdir()
        ports = free_ports(2 * len(_PORTS))
        listening = dict(zip(_PORTS, ports, strict=False))
        command = [str(Path(sys.executable).parent / "weed"), "-logtostderr=true", "server", f"-dir={data}"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.config={config}", "-iam=false"]
        for name, grpc_port in zip(_PORTS, ports[len(_PORTS) :], strict=True):
            command += [f"-{name}.port={listening[name]}", f"-{name}.port.grpc={grpc_port}"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
        self._command = [*command, "-volume.max=16", "-master.volumeSizeLimitMB=256"]
        self.endpoint = f"http://127.0.0.1:{listening['s3']}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> MinioStore:
        """Start the server, and wait until its bucket takes a write."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=subprocess.STDOUT)
        store = connect(self.endpoint)
        _wait_until_ready(store, self._process, self._log)
        return store

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stop it, gently at first; does nothing where it is gone."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def running_store(folder: Path) -> Iterator[RealStore]:
    """Start a server, wait until its bucket takes a write, and stop it at the end."""
    server = StoreServer(folder)
    try:
        yield RealStore(server.endpoint, server.start(), server)
    finally:
        server.stop()


def _wait_until_ready(store: MinioStore, server: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + _READY_WITHIN_S
    while True:
        try:
            store.ensure_bucket(create=True)
            store.put("ready", b"")
            store.delete("ready")
            return
        except StoreError:
            if server.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"the object store did not start:\n{log.read_text()[-4000:]}") from None
            time.sleep(_LOOK_AGAIN_S)
