"""What Kubernetes does with Jobs on a `tests/kubernetes_api.py`: pods, their ends, and how a Job's policy reads them.

A test moves the pods, or `run` makes real processes of them. Written after the documentation of batch/v1 Jobs
(podFailurePolicy, backoffLimit, suspend) for what has one completion.
"""

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Mapping

from tests.kubernetes_api import NAMESPACE, KubernetesApi, Object, timestamp

_JOB = "batch.kubernetes.io/job-name"
_SIGNALLED = 128


class JobController:
    """The controller of an API server, which acts at once. secrets: values of Secrets, by "name/key", for real pods."""

    def __init__(self, api: KubernetesApi, secrets: Mapping[str, str] | None = None) -> None:
        """With `secrets` every pod is a real process of this machine; otherwise the test says what becomes of it."""
        self.api = api
        self._secrets = secrets
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        api.on_job = self._job_came_or_went

    def pod_of(self, job: str) -> Object:
        """The latest pod of a Job."""
        return [pod for pod in self.api.objects["pods"].values() if pod["metadata"]["labels"][_JOB] == job][-1]

    def start(self, job: str) -> None:
        """The pod found a node and its image: it runs."""
        self._set(job, active=1, ready=1)
        self._pod_state(self.pod_of(job), "Running", {"running": {"startedAt": timestamp()}})

    def hold_up(self, job: str, reason: str, message: str) -> None:
        """The pod cannot start, as Kubernetes says it of its container."""
        self._pod_state(self.pod_of(job), "Pending", {"waiting": {"reason": reason, "message": message}})

    def exit(self, job: str, code: int, reason: str = "Error") -> None:
        """The pod has ended with an exit status; what that means is the Job's policy's to say."""
        with self.api.changed:
            if job in self.api.objects["jobs"]:
                self._exited(job, self.pod_of(job), code, reason)

    def preempt(self, job: str) -> None:
        """Somebody more important needs the node: SIGTERM to the pod, and the mark of a disruption."""
        with self.api.changed:
            pod = self.pod_of(job)
            disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
            pod["status"].setdefault("conditions", []).append(disrupted)
            self.api.put("pods", pod)
        self._terminate(pod)

    def suspend(self, job: str) -> None:
        """What Kueue does to preempt a Job: its pods are deleted, and their ends count for nothing."""
        with self.api.changed:
            found = self.api.objects["jobs"][job]
            found["spec"]["suspend"] = True
            self._remove_pods(job)
            self._set(job, active=0, ready=0)

    def resume(self, job: str) -> None:
        """What Kueue does when there is room."""
        with self.api.changed:
            self.api.objects["jobs"][job]["spec"]["suspend"] = False
            self._add_pod(job)

    def exceed_deadline(self, job: str) -> None:
        """The Job was active for longer than `activeDeadlineSeconds`: its pods are deleted."""
        with self.api.changed:
            self._remove_pods(job)
            self._finish(job, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline")

    def _job_came_or_went(self, job: Object) -> None:
        name = job["metadata"]["name"]
        if name not in self.api.objects["jobs"]:
            self._remove_pods(name)
        elif not job["spec"].get("suspend"):
            self._add_pod(name)

    def _add_pod(self, job: str) -> None:
        template = self.api.objects["jobs"][job]["spec"]["template"]
        metadata = template.get("metadata", {})
        pod: Object = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{job}-{uuid.uuid4().hex[:5]}",
                "namespace": NAMESPACE,
                "uid": str(uuid.uuid4()),
                "labels": metadata.get("labels", {}) | {_JOB: job},
                "annotations": metadata.get("annotations", {}),
                "creationTimestamp": timestamp(),
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }
        self.api.put("pods", pod, "ADDED")
        self._set(job, active=1, ready=0, startTime=timestamp())
        if self._secrets is not None:
            self._run(job, pod, self._secrets)

    def _run(self, job: str, pod: Object, secrets: Mapping[str, str]) -> None:
        (container,) = pod["spec"]["containers"]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PERSONAE_")}
        own = {}
        for entry in container["env"]:
            secret = entry.get("valueFrom", {}).get("secretKeyRef")
            own[entry["name"]] = secrets[f"{secret['name']}/{secret['key']}"] if secret else entry["value"]
        program, *arguments = [*container["command"], *container["args"]]
        assert program == "python"
        process = subprocess.Popen([sys.executable, *arguments], env=inherited | own)
        self._processes[pod["metadata"]["name"]] = process
        self.start(job)

        def wait() -> None:
            code = process.wait()
            with self.api.changed:
                del self._processes[pod["metadata"]["name"]]
                if pod["metadata"]["name"] in self.api.objects["pods"]:
                    self._exited(job, pod, code if code >= 0 else _SIGNALLED - code, "Error" if code else "Completed")

        threading.Thread(target=wait, daemon=True).start()

    def _exited(self, job: str, pod: Object, code: int, reason: str) -> None:
        end = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": timestamp()}}
        self._pod_state(pod, "Failed" if code else "Succeeded", end)
        self._set(job, active=0, ready=0)
        if not code:
            self._finish(job, "Complete", "CompletionsReached", "Reached expected number of succeeded pods")
            return
        spec, status = (self.api.objects["jobs"][job][part] for part in ("spec", "status"))
        action = _action(spec, pod, code)
        if action != "Ignore":
            self._set(job, failed=status.get("failed", 0) + 1)
        if action == "FailJob":
            self._finish(job, "Failed", "PodFailurePolicy", f"Container worker failed with exit code {code}")
        elif status.get("failed", 0) > spec["backoffLimit"]:
            self._finish(job, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        else:
            self._add_pod(job)

    def _finish(self, job: str, kind: str, reason: str, message: str) -> None:
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        self._set(job, active=0, ready=0, conditions=[condition])

    def _set(self, job: str, **status: object) -> None:
        with self.api.changed:
            found = self.api.objects["jobs"][job]
            found["status"] |= status
            self.api.put("jobs", found)

    def _pod_state(self, pod: Object, phase: str, state: Object) -> None:
        statuses = [{"name": "worker", "image": "any", "imageID": "", "ready": phase == "Running", "restartCount": 0}]
        pod["status"] |= {"phase": phase, "containerStatuses": [statuses[0] | {"state": state}]}
        self.api.put("pods", pod)

    def _remove_pods(self, job: str) -> None:
        for name, pod in list(self.api.objects["pods"].items()):
            if pod["metadata"]["labels"][_JOB] == job:
                self.api.drop("pods", name)
                self._terminate(pod)

    def _terminate(self, pod: Object) -> None:
        process = self._processes.get(pod["metadata"]["name"])
        if process is not None:
            process.send_signal(signal.SIGTERM)

    def kill_all(self) -> None:
        """End every real pod."""
        for process in list(self._processes.values()):
            process.kill()
            process.wait()


def _action(spec: Object, pod: Object, code: int) -> str:
    """What the first rule that fits says of a pod's failure."""
    conditions = {(found["type"], found["status"]) for found in pod["status"].get("conditions", [])}
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        codes = rule.get("onExitCodes")
        if codes and codes["operator"] == "In" and code in codes["values"]:
            return str(rule["action"])
        if conditions & {(found["type"], found["status"]) for found in rule.get("onPodConditions", [])}:
            return str(rule["action"])
    return "Count"
