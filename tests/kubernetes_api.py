"""A Kubernetes API server on loopback, as far as Jobs go: list, watch, create and delete of Jobs and of their pods.

Its one rule: it takes nothing that a real one would refuse. Every object is held against the published schema,
strictly, and against what the schema does not say of names, labels and policies. What Kubernetes' controllers do with a
Job is in `tests/job_controller.py`.
"""

import contextlib
import copy
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

NAMESPACE = "personae"
Object = dict[str, Any]
_COLLECTIONS = {f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs": "jobs", f"/api/v1/namespaces/{NAMESPACE}/pods": "pods"}
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass
class Fault:
    """What befalls the next `times` calls of this verb: a wait, then an answer. code: 0 leaves the answer as it is."""

    verb: str
    code: int = 0
    times: int = 1
    performed: bool = False
    """Whether the call is carried out all the same, so that only its answer is lost."""
    delay_s: float = 0.0


class KubernetesApi:
    """The objects, and who is told of changes to them. All methods are safe for several threads."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.objects: dict[str, dict[str, Object]] = {"jobs": {}, "pods": {}}
        self.faults: list[Fault] = []
        self.calls: list[str] = []
        self.refused: list[str] = []
        self.token = "a-token"
        self.on_job: Callable[[Object], None] = lambda job: None
        self.closed = False
        self._version = 0
        self._compacted = 0
        self._log: list[tuple[int, str, str, Object]] = []

    def put(self, kind: str, found: Object, event: str = "MODIFIED") -> None:
        """Store an object and tell those who watch."""
        with self.changed:
            self._version += 1
            found["metadata"]["resourceVersion"] = str(self._version)
            self.objects[kind][found["metadata"]["name"]] = found
            self._log.append((self._version, kind, event, copy.deepcopy(found)))
            self.changed.notify_all()

    def drop(self, kind: str, name: str) -> None:
        """Delete an object; a Job's pods go with it."""
        with self.changed:
            found = self.objects[kind].pop(name, None)
            if found is None:
                return
            self._version += 1
            self._log.append((self._version, kind, "DELETED", found))
            self.changed.notify_all()
            if kind == "jobs":
                self.on_job(found)

    def forget_history(self) -> None:
        """Have every watch end with 410: what it missed, it has to list."""
        with self.changed:
            self._compacted = self._version = self._version + 1
            self.changed.notify_all()

    def create(self, job: Object) -> tuple[int, Object]:
        """What a POST of a Job does: its code and body."""
        complaint = refusal(job)
        if complaint:
            self.refused.append(complaint)
            return 422, status(422, complaint)
        with self.changed:
            if job["metadata"]["name"] in self.objects["jobs"]:
                return 409, status(409, "AlreadyExists")
            job["metadata"] |= {"uid": str(uuid.uuid4()), "namespace": NAMESPACE, "creationTimestamp": timestamp()}
            job.setdefault("status", {})
            self.put("jobs", job, "ADDED")
            self.on_job(job)
            return 201, copy.deepcopy(job)

    def listed(self, kind: str, selector: dict[str, str]) -> Object:
        """What a GET of a collection answers."""
        with self.changed:
            items = [copy.deepcopy(found) for found in self.objects[kind].values() if _selects(selector, found)]
            return {"kind": "List", "metadata": {"resourceVersion": str(self._version)}, "items": items}

    def watched(self, kind: str, selector: dict[str, str], version: int, until_s: float) -> Iterator[Object]:
        """The events after a version, as they come."""
        while time.monotonic() < until_s:
            with self.changed:
                if self.closed:
                    return
                if version < self._compacted:
                    yield {"type": "ERROR", "object": status(410, "too old resource version")}
                    return
                found = [entry for entry in self._log if entry[0] > version]
                if not found:
                    self.changed.wait(0.2)
            for _, of_kind, event, body in found:
                if of_kind == kind and _selects(selector, body):
                    yield {"type": event, "object": body}
            version = found[-1][0] if found else version

    def fault(self, verb: str) -> Fault | None:
        """The fault that is due for a call, if any."""
        with self.changed:
            self.calls.append(verb)
            for fault in self.faults:
                if fault.verb == verb and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


def timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def status(code: int, message: str) -> Object:
    """The body of an answer that says no more than how it went."""
    outcome = "Success" if code < 300 else "Failure"
    return {"apiVersion": "v1", "kind": "Status", "status": outcome, "message": message, "code": code, "metadata": {}}


def refusal(job: Object) -> str:
    """Why an API server would refuse a Job; empty where it would not."""
    try:
        kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    name, spec = job["metadata"]["name"], job["spec"]
    pod, rules = spec["template"]["spec"], spec.get("podFailurePolicy", {}).get("rules", [])
    labels = {**job["metadata"].get("labels", {}), **spec["template"].get("metadata", {}).get("labels", {})}
    containers = {container["name"] for container in pod["containers"]}
    found = [f"label {label}={value!r}" for label, value in labels.items() if not _LABEL_VALUE.fullmatch(value)]
    if not _NAME.fullmatch(name):
        found.append(f"name {name!r}")
    if pod.get("restartPolicy") not in ("Never", "OnFailure") or (rules and pod["restartPolicy"] != "Never"):
        found.append(f"restartPolicy {pod.get('restartPolicy')!r}")
    for rule in rules:
        codes = rule.get("onExitCodes")
        if codes and (codes["containerName"] not in containers or codes["values"] != sorted(set(codes["values"]))):
            found.append(f"podFailurePolicy {rule}")
        if codes and codes["operator"] == "In" and 0 in codes["values"]:
            found.append("podFailurePolicy for exit code 0")
    for container in pod["containers"]:
        limits, requests = (container.get("resources", {}).get(kind, {}) for kind in ("limits", "requests"))
        if not container.get("image"):
            found.append("a container without an image")
        # Extended resources are never overcommitted.
        if "nvidia.com/gpu" in requests and requests["nvidia.com/gpu"] != limits.get("nvidia.com/gpu"):
            found.append("GPUs requested and limited differently")
    return "; ".join(found)


def _selects(selector: dict[str, str], found: Object) -> bool:
    return selector.items() <= found["metadata"].get("labels", {}).items()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: KubernetesApi

    def do_GET(self) -> None:
        kind, _, query = self._target()
        selector = dict(pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair)
        if not kind:
            self._answer(404, status(404, "no such path"))
        elif query.get("watch") != "true":
            self._serve(f"list {kind}", lambda: (200, self.api.listed(kind, selector)))
        elif not self._is_spoiled(f"watch {kind}", None):
            self._stream(kind, selector, query)

    def do_POST(self) -> None:
        kind, _, _ = self._target()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._serve(f"create {kind}", lambda: self.api.create(body))

    def do_DELETE(self) -> None:
        kind, name, query = self._target()

        def delete() -> tuple[int, Object]:
            if name not in self.api.objects[kind]:
                return 404, status(404, "NotFound")
            assert query.get("propagationPolicy") == "Background", "pods would be orphaned"
            self.api.drop(kind, name)
            return 200, status(200, "deleted")

        self._serve(f"delete {kind}", delete)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def _target(self) -> tuple[str, str, dict[str, str]]:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        for path, kind in _COLLECTIONS.items():
            if parts.path == path or parts.path.startswith(path + "/"):
                return kind, parts.path[len(path) + 1 :], query
        return "", "", query

    def _serve(self, verb: str, act: Callable[[], tuple[int, Object]]) -> None:
        if not self._is_spoiled(verb, act):
            self._answer(*act())

    def _is_spoiled(self, verb: str, act: Callable[[], tuple[int, Object]] | None) -> bool:
        if self.headers.get("Authorization") != f"Bearer {self.api.token}":
            self._answer(401, status(401, "Unauthorized"))
            return True
        fault = self.api.fault(verb)
        if fault is None:
            return False
        time.sleep(fault.delay_s)
        if fault.performed and act is not None:
            act()
        if fault.code:
            self._answer(fault.code, status(fault.code, "as the test has it"))
        return bool(fault.code)

    def _answer(self, code: int, body: Object) -> None:
        encoded = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        # Who asked may have gone.
        with contextlib.suppress(ConnectionError):
            self.end_headers()
            self.wfile.write(encoded)

    def _stream(self, kind: str, selector: dict[str, str], query: dict[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        until_s = time.monotonic() + float(query.get("timeoutSeconds", 3600))
        with contextlib.suppress(ConnectionError):
            for event in self.api.watched(kind, selector, int(query["resourceVersion"]), until_s):
                self.wfile.write(json.dumps(event).encode() + b"\n")
                self.wfile.flush()


@contextmanager
def running_api(folder: Path) -> Iterator[tuple[KubernetesApi, Path]]:
    """A running API server, and the kubeconfig that leads to it."""
    api = KubernetesApi()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api}))
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    config, token = folder / "kubeconfig", folder / "token"
    token.write_text(api.token)
    user = {"name": "here", "user": {"tokenFile": str(token)}}
    context = {"name": "here", "context": {"cluster": "here", "user": "here", "namespace": NAMESPACE}}
    cluster = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    known: Object = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "here"}
    config.write_text(yaml.safe_dump(known))
    try:
        yield api, config
    finally:
        with api.changed:
            api.closed = True
            api.changed.notify_all()
        server.shutdown()
        server.server_close()
        serving.join()
