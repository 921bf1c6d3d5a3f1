"""A service of ours as a real process on a free port, for tests; it is gone when the block is left."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real_store import RealStore

STOP_WITHIN_S = 60.0


@dataclass(frozen=True)
class ServiceProcess:
    """A running service: where it serves, and its process."""

    address: str
    health_address: str
    metrics_address: str
    process: subprocess.Popen[str]
    log: Path

    def child_processes(self) -> list[int]:
        """Process ids of its children: the warm workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(child) for child in children.split()]

    def kill_workers(self) -> None:
        """kill -9 to every worker."""
        for child in self.child_processes():
            os.kill(child, signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, and the exit status that follows."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_WITHIN_S)


def service_environment(store: RealStore, **settings: str) -> dict[str, str]:
    """The environment of a service on that store, on free ports, with further settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PERSONAE_")}
    ports = {
        f"PERSONAE_{service}{kind}_ADDRESS": "127.0.0.1:0"
        for service in ("TRAINER", "INFERENCE")
        for kind in ("", "_HEALTH", "_METRICS")
    }
    # Fewer than a large machine would have; workers inherit the variable, and pass it over.
    return inherited | store.environment() | ports | {"PERSONAE_DECODER_CHILDREN": "2"} | settings


@contextmanager
def running_service(module: str, environment: Mapping[str, str], log: Path) -> Iterator[ServiceProcess]:
    """Start `python -m module` and wait until it serves."""
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", module], env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"{module} did not start:\n{log.read_text()[-3000:]}"
        ready = json.loads(line)
        yield ServiceProcess(ready["address"], ready["health_address"], ready.get("metrics_address", ""), process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
