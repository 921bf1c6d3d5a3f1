"""The Job of a training, made of the operator's template: a `batch/v1` Job in YAML whose pod has a container `worker`.

Its one rule: the template says where and with what rights a worker runs (service account, volumes, tolerations,
secrets), we say what it runs and how its end is read. What must be ours may not be in the template.

Left out of the template, these are filled in: `image` (`PERSONAE_KUBERNETES_IMAGE`), `command` (`python -m
trainer_service.worker`; the training's name is appended to `args`), one GPU (`nvidia.com/gpu` among the limits; "0" for
none), `backoffLimit` (6), `activeDeadlineSeconds` (a day, waiting included), `ttlSecondsAfterFinished` (a day). The
memory is raised to the estimate's where the template requests less. A label `kueue.x-k8s.io/queue-name` has the Job
created suspended, for Kueue to start.
"""

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from service_kit.names import TrainingName
from trainer_service.kubernetes_cluster import TRAINING, quantity, read_job
from trainer_service.worker.exit_code import ExitCode

CONTAINER = "worker"
QUEUE = "kueue.x-k8s.io/queue-name"
GPU = "nvidia.com/gpu"
_COMMAND = ["python", "-m", "trainer_service.worker"]
_DEFAULTS = {"backoffLimit": 6, "activeDeadlineSeconds": 24 * 3600, "ttlSecondsAfterFinished": 24 * 3600}
# A worker that failed its training would fail it again. One that handed it over, or whose node was taken from it, is
# replaced without being counted: takes that bring nothing are counted in the training's record. All else is counted.
_FAILURE_POLICY = {
    "rules": [
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [int(ExitCode.FAILED)]},
        },
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "Ignore",
            "onExitCodes": {
                "containerName": CONTAINER,
                "operator": "In",
                "values": [int(ExitCode.TRY_AGAIN), int(ExitCode.HANDED_OVER)],
            },
        },
    ]
}
_OURS = ("completions", "parallelism", "completionMode", "podFailurePolicy", "suspend", "selector", "manualSelector")


class TemplateError(Exception):
    """The template cannot be used; the text names every reason."""


class JobTemplate:
    """A template that was found good.

    deployment: tells apart what several deployments of the service have in one namespace; any text. environment: what
    workers shall find in theirs, unless the template says otherwise. image: of workers; empty: the template's.
    """

    def __init__(
        self, body: Mapping[str, Any], deployment: str, environment: Mapping[str, str], image: str = ""
    ) -> None:
        """Raises TemplateError."""
        if not isinstance(body, Mapping) or (body.get("apiVersion"), body.get("kind")) != ("batch/v1", "Job"):
            raise TemplateError("allowed is one object of apiVersion batch/v1 and kind Job")
        try:
            self._body, unknown = read_job(body)
        except ValueError as error:
            raise TemplateError(str(error)) from error
        complaints = [f"{field}: no Job has such a field" for field in unknown] + _complaints(self._body, image)
        if complaints:
            raise TemplateError("\n".join(complaints))
        self._deployment = _digest(deployment)
        self._environment = environment
        self._image = image

    @property
    def labels(self) -> dict[str, str]:
        """What all Jobs of this deployment and their pods, and none besides, are labelled with."""
        return {"app.kubernetes.io/managed-by": "personae-trainer", "personae/deployment": self._deployment}

    def name(self, training: TrainingName) -> str:
        """The name of a training's Job, in every service: who creates it twice is told so."""
        return f"personae-{_digest(f'{self._deployment}/{training}')}"

    def job(self, training: TrainingName, memory_bytes: int) -> dict[str, Any]:
        """The Job of a training that needs so much memory."""
        job = copy.deepcopy(self._body)
        metadata, spec = job.setdefault("metadata", {}), job["spec"]
        pod_metadata = spec["template"].setdefault("metadata", {})
        # A label's value may not end in "-"; an annotation's may be anything.
        ids = {"personae/project": training.project.rstrip("-"), "personae/training-id": training.training.rstrip("-")}
        for place in (metadata, pod_metadata):
            place["labels"] = {**place.get("labels", {}), **self.labels, **ids}
            place["annotations"] = {**place.get("annotations", {}), TRAINING: str(training)}
        metadata["name"] = self.name(training)
        job["spec"] = spec = _DEFAULTS | spec | {"podFailurePolicy": _FAILURE_POLICY}
        if QUEUE in metadata["labels"]:
            spec["suspend"] = True
        spec["template"]["spec"]["restartPolicy"] = "Never"
        self._fill_in(_worker(job), training, memory_bytes)
        return job

    def _fill_in(self, container: dict[str, Any], training: TrainingName, memory_bytes: int) -> None:
        container.setdefault("image", self._image)
        container.setdefault("command", _COMMAND)
        container["args"] = [*container.get("args", []), str(training)]
        given = {entry["name"] for entry in container.setdefault("env", [])}
        container["env"] += [
            {"name": name, "value": value} for name, value in sorted(self._environment.items()) if name not in given
        ]
        resources = container.setdefault("resources", {})
        resources.setdefault("limits", {}).setdefault(GPU, 1)
        requests = resources.setdefault("requests", {})
        # A limit alone is a request too.
        asked = str(requests.get("memory", resources["limits"].get("memory", 0)))
        if quantity(asked) < memory_bytes:
            requests["memory"] = str(memory_bytes)
            if "memory" in resources["limits"] and quantity(str(resources["limits"]["memory"])) < memory_bytes:
                resources["limits"]["memory"] = str(memory_bytes)


def read_template(path: Path, deployment: str, environment: Mapping[str, str], image: str) -> JobTemplate:
    """The template in a file. Raises TemplateError."""
    try:
        body = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TemplateError(str(error)) from error
    return JobTemplate(body, deployment, environment, image)


def _complaints(body: Mapping[str, Any], image: str) -> list[str]:
    """Everything about a Job that is none of a template's."""
    spec = body.get("spec")
    if spec is None:
        return ["spec: needed"]
    found = [f"spec.{field}: is filled in; allowed is to leave it out" for field in _OURS if field in spec]
    found += [
        f"metadata.{field}: is filled in; allowed is to leave it out"
        for field in ("name", "generateName", "namespace")
        if field in body.get("metadata", {})
    ]
    pod = spec["template"].get("spec", {})
    restart = pod.get("restartPolicy", "Never")
    if restart != "Never":
        found.append(f"spec.template.spec.restartPolicy: found {restart!r}; allowed is 'Never'")
    names = [container["name"] for container in pod.get("containers", [])]
    if CONTAINER not in names:
        return [*found, f"spec.template.spec.containers: found {names}; one must be called {CONTAINER!r}"]
    worker = _worker(body)
    if not image and not worker.get("image"):
        found.append(f"spec.template.spec.containers[{CONTAINER}].image: needed, or PERSONAE_KUBERNETES_IMAGE")
    for place in ("requests", "limits"):
        memory = str(worker.get("resources", {}).get(place, {}).get("memory", 0))
        try:
            quantity(memory)
        except ValueError:
            found.append(f"spec.template.spec.containers[{CONTAINER}].resources.{place}.memory: found {memory!r}")
    return found


def _worker(job: Mapping[str, Any]) -> dict[str, Any]:
    containers = job["spec"]["template"]["spec"]["containers"]
    return next(container for container in containers if container["name"] == CONTAINER)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]
