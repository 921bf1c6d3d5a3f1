"""The whole of Personae on this machine: object store, trainer and inference service, as three child processes.

It needs a source checkout, finds the services by name and starts them, and never imports them; beside it, only
`told.py`, which starts programs of theirs, knows that they exist.
"""

import contextlib
import importlib.util
import json
import os
import random
import secrets
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from personae.cli.child import Child
from personae.errors import InvalidRequest, PersonaeError, Violation

_START_S = 180.0
"""Longest start: the first import of torch on a slow disk."""
_SERVICE_STOP_S = 15.0
_STORE_STOP_S = 1.0
"""weed takes 15 s over a SIGTERM; what it has acknowledged survives SIGKILL, so it gets one second."""


class StackError(PersonaeError):
    """The local services cannot start here; the text says what to change."""


@dataclass(frozen=True)
class Addresses:
    """Where things listen, as `host:port`; port 0 means any free one. Metrics with an empty address are not served."""

    trainer: str = "127.0.0.1:0"
    inference: str = "127.0.0.1:0"
    trainer_health: str = "127.0.0.1:0"
    inference_health: str = "127.0.0.1:0"
    trainer_metrics: str = ""
    inference_metrics: str = ""
    store_port: int = 0


@dataclass(frozen=True)
class Running:
    """A started stack: where its services are."""

    trainer: str
    inference: str
    store: str
    """Endpoint of the object store, as a URL."""
    announced: Mapping[str, Mapping[str, str]]
    """What each service said when it began to serve: `address`, `health_address`, perhaps `metrics_address`."""
    _children: list[Child] = field(repr=False)

    @property
    def logs(self) -> dict[str, Path]:
        """The log of each process, by its name; a store that is not ours has none."""
        return {child.name: child.log for child in self._children}

    def watch(self, look: Callable[[], None] = lambda: None) -> None:
        """Block while everything runs, and `look` twice a second. Raises StackError when a process ends by itself."""
        while True:
            for child in self._children:
                _check(child)
            look()
            time.sleep(0.5)


def checkout() -> Path:
    """The source checkout that the services run from. Raises StackError where there is none."""
    found = [importlib.util.find_spec(name) for name in ("trainer_service", "inference_service")]
    origins = [spec.origin for spec in found if spec and spec.origin]
    if len(origins) < len(found):
        raise StackError(
            "The services are not beside this client: `personae up`, `demo` and `verify-store` need a source "
            "checkout. "
            "Clone the repository and run `make demo` there."
        )
    return Path(origins[0]).parent.parent


@contextlib.contextmanager
def running(
    data: Path, logs: Path, addresses: Addresses, options: Mapping[str, str], base_models: str = ""
) -> Iterator[Running]:
    """A stack that runs for as long as the context lasts; everything has stopped when it is left, however that comes.

    data: folder of the object store; the adapter cache lies beside it. logs: folder for one log per process. options:
    what changes each of `addresses`, to be named where one is taken. base_models: the services' PERSONAE_BASE_MODELS;
    empty: their default. With PERSONAE_S3_ENDPOINT set, that store is used and none is started.
    """
    root = checkout()
    _refuse_taken_ports(addresses, options)
    for folder in (data, logs):
        folder.mkdir(parents=True, exist_ok=True)
    # The services share this machine's cores. Threads that spin while they wait for each other made a picture more than
    # ten times slower beside a training, and two were less than twice as fast alone (docs/measurements.md).
    inherited = {"OMP_NUM_THREADS": "1"} | {
        name: value for name, value in os.environ.items() if not name.startswith("PERSONAE_")
    }
    children: list[Child] = []
    with contextlib.ExitStack() as stack:
        stack.callback(_stop, children)
        external = os.environ.get("PERSONAE_S3_ENDPOINT", "")
        if external:
            settings = {name: value for name, value in os.environ.items() if name.startswith("PERSONAE_S3_")}
        else:
            settings = _start_store(children, data, logs, inherited, addresses.store_port)
        # They wait for the store themselves, so all of it starts at once: importing torch takes longest.
        environment = (
            inherited
            | settings
            | {
                "PERSONAE_TRAINER_ADDRESS": addresses.trainer,
                "PERSONAE_TRAINER_HEALTH_ADDRESS": addresses.trainer_health,
                "PERSONAE_INFERENCE_ADDRESS": addresses.inference,
                "PERSONAE_INFERENCE_HEALTH_ADDRESS": addresses.inference_health,
                "PERSONAE_TRAINER_METRICS_ADDRESS": addresses.trainer_metrics,
                "PERSONAE_INFERENCE_METRICS_ADDRESS": addresses.inference_metrics,
                "PERSONAE_INFERENCE_CACHE_DIR": str(data.with_name("adapter-cache")),
            }
            | ({"PERSONAE_BASE_MODELS": base_models} if base_models else {})
        )
        for name in ("trainer_service", "inference_service"):
            children.append(Child(name, [sys.executable, "-m", name], logs, environment, root))
        if not external:
            _wait_for_store(children[0], settings["PERSONAE_S3_ENDPOINT"])
        announced = {service.name: _announced(service, children) for service in children[-2:]}
        trainer, inference = (said["address"] for said in announced.values())
        yield Running(trainer, inference, settings["PERSONAE_S3_ENDPOINT"], announced, children)


def _start_store(
    children: list[Child], data: Path, logs: Path, environment: Mapping[str, str], port: int
) -> dict[str, str]:
    weed = Path(sys.executable).with_name("weed")
    if not weed.is_file():
        raise StackError(f"{weed} is missing; `make demo` installs it, or set PERSONAE_S3_ENDPOINT to a store of yours")
    access_key, secret_key, identities = _credentials(data)
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    ports = dict(zip((*names, "s3.port.grpc", "s3.port"), _free_ports(8), strict=True))
    ports["s3.port"] = port or ports["s3.port"]
    # A master on another port than last time keeps no old votes: it learns the volumes from their files, and a restart
    # takes 4 s instead of 20.
    command = [
        str(weed),
        "-logtostderr=true",
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        f"-s3.config={identities}",
        *(f"-{name}={number}" for name, number in ports.items()),
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-iam=false",
        "-volume.max=16",
        "-volume.preStopSeconds=0",
        "-master.volumeSizeLimitMB=256",
        "-master.telemetry=false",
    ]
    children.append(Child("store", command, logs, environment, data))
    return {
        "PERSONAE_S3_ENDPOINT": f"http://127.0.0.1:{ports['s3.port']}",
        "PERSONAE_S3_ACCESS_KEY": access_key,
        "PERSONAE_S3_SECRET_KEY": secret_key,
        "PERSONAE_S3_BUCKET": "personae",
        "PERSONAE_S3_CREATE_BUCKET": "true",
        # After a SIGKILL the store reads its files again before it answers.
        "PERSONAE_S3_PATIENCE_S": "90",
    }


def _credentials(data: Path) -> tuple[str, str, Path]:
    """Access key, secret key and the file that tells the store about them: made once, kept with the data."""
    file = data / "s3-identities.json"
    if not file.exists():
        credentials = [{"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = [{"name": "personae", "credentials": credentials, "actions": actions}]
        file.touch(mode=0o600)
        file.write_text(json.dumps({"identities": identities}))
    kept = json.loads(file.read_text())["identities"][0]["credentials"][0]
    return kept["accessKey"], kept["secretKey"], file


def _wait_for_store(store: Child, endpoint: str) -> None:
    """Return once the store speaks HTTP; what it says matters to the services, which go on asking by themselves."""
    give_up = time.monotonic() + _START_S
    while time.monotonic() < give_up:
        _check(store)
        try:
            urllib.request.urlopen(endpoint, timeout=2).close()
            return
        except urllib.error.HTTPError as answer:
            answer.close()
            return
        except OSError:
            time.sleep(0.1)
    raise StackError(f"The object store did not answer within {_START_S:g} s:\n{store.last_lines()}")


def _announced(service: Child, children: list[Child]) -> dict[str, str]:
    """What the service announces on stdout once it serves."""
    give_up = time.monotonic() + _START_S
    while time.monotonic() < give_up:
        for line in service.output.read_text().splitlines(keepends=True):
            if line.startswith("{") and line.endswith("\n"):
                said: dict[str, str] = json.loads(line)
                return said
        for child in children:
            _check(child)
        time.sleep(0.05)
    raise StackError(f"{service.name} was not ready within {_START_S:g} s:\n{service.last_lines()}")


def _check(child: Child) -> None:
    if child.exit_code is not None:
        raise StackError(f"{child.name} ended with exit code {child.exit_code}; its log ends:\n{child.last_lines()}")


def _stop(children: list[Child]) -> None:
    """Stop the services, then the store. Impatient signals are held off: this ends in bounded time by itself."""
    held = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    services = [child for child in children if child.name != "store"]
    for service in services:
        service.ask_to_stop()
    for service in services:
        service.stop(_SERVICE_STOP_S)
    for store in children:
        store.stop(_STORE_STOP_S)
    for number, handler in held.items():
        signal.signal(number, handler)


def _refuse_taken_ports(addresses: Addresses, options: Mapping[str, str]) -> None:
    wanted = {
        "trainer": addresses.trainer,
        "inference": addresses.inference,
        "trainer_health": addresses.trainer_health,
        "inference_health": addresses.inference_health,
        "store_port": f"127.0.0.1:{addresses.store_port}",
    }
    metrics = {"trainer_metrics": addresses.trainer_metrics, "inference_metrics": addresses.inference_metrics}
    wanted |= {name: address for name, address in metrics.items() if address}
    for name, address in wanted.items():
        host, _, port = address.rpartition(":")
        if not port.isdigit():
            raise InvalidRequest([Violation(options[name], f"found {address!r}; allowed is host:port")])
        if port != "0" and not is_free(host, int(port)):
            raise StackError(f"{address} is taken; choose another with {options[name]}")


def is_free(host: str, port: int) -> bool:
    """Whether a server of ours could listen there."""
    with socket.socket() as probe:
        # Without it, a port whose last connection closed a moment ago would pass for taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _free_ports(count: int) -> list[int]:
    """Ports below those that the system gives to outgoing connections, so that none is lost before it is used."""
    candidates = random.sample(range(20_000, 32_000), 400)
    return [port for port in candidates if is_free("127.0.0.1", port)][:count]
