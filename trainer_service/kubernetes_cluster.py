"""The Jobs of this service in a Kubernetes cluster: seen by list and watch, created, deleted.

Its one rule: it alone knows lightkube. Decisions are made elsewhere (`kubernetes_executor.py`), from what is seen here.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx2
from lightkube import AsyncClient, KubeConfig
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Pod
from lightkube.types import CascadeType
from lightkube.utils.quantity import parse_quantity
from msgspec import MsgspecError, ValidationError

from service_kit.names import MalformedName, TrainingName

_logger = logging.getLogger(__name__)
# It has a line for every request, and a watch is one every few minutes.
logging.getLogger("httpx2").setLevel(logging.WARNING)

TRAINING = "personae/training"
"""Annotation of a Job: the full name of its training."""
# A connection that died without a word would be listened to for ever; and whatever a watch missed is found.
_LIST_AGAIN_S = 300.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_PAGE = 500
_EXISTS, _GONE, _MISSING = 409, 410, 404


class NoCluster(Exception):
    """Nothing in the environment says where a cluster is."""


class ClusterError(Exception):
    """The cluster's API refused a call or did not answer. `code`: HTTP's; 0 where it did not answer."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def is_about_the_object(self) -> bool:
        """Whether what was sent is wrong, so that another object may fare better."""
        return self.code in (400, 422)


@dataclass(frozen=True)
class SeenJob:
    """A Job as the cluster last showed it. `end`: why it finished, for people; empty while it may go on."""

    name: str
    training: TrainingName
    suspended: bool
    pending: bool
    """Whether it has a pod that waits for a node or an image."""
    running: bool
    """Whether it has a pod that runs, and so notices for itself whatever becomes of its training."""
    end: str

    @property
    def state(self) -> str:
        """Of `JOB_STATES`, for metrics."""
        if self.end:
            return "finished"
        return "running" if self.running else "suspended" if self.suspended else "waiting"

    @property
    def can_be_spared(self) -> bool:
        """Whether nothing of it runs or is about to say how it ended."""
        return not self.end and not self.running and (self.suspended or self.pending)


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a pod. `reason`: Kubernetes' word, as ImagePullBackOff or OOMKilled."""

    reason: str
    message: str


class Cluster:
    """The Jobs that bear `labels`, in the namespace of the service account or of the kubeconfig's context.

    Whom to ask is found as kubectl does: the pod's service account, whose token is read again when it is refused, else
    the file that KUBECONFIG names. Raises NoCluster. failed: told the call at every failure.
    """

    def __init__(self, labels: Mapping[str, str], failed: Callable[[str], None]) -> None:
        try:
            self._client = AsyncClient(KubeConfig.from_env())
        # Malformed files raise what YAML, dictionaries and files raise.
        except (ConfigError, OSError, KeyError, ValueError) as error:
            raise NoCluster(str(error)) from error
        self._labels = dict(labels)
        self._failed = failed
        self._jobs: dict[str, SeenJob] | None = None

    @property
    def jobs(self) -> dict[str, SeenJob] | None:
        """The Jobs by name, as last seen; None before they were listed for the first time."""
        return None if self._jobs is None else dict(self._jobs)

    async def follow(self, changed: Callable[[], None]) -> None:
        """Keep `jobs` as it is in the cluster, for ever; `changed` is called after each change."""
        pause_s = _FIRST_PAUSE_S
        while True:
            began_s = time.monotonic()
            try:
                async with self._calls("watch"), asyncio.timeout(_LIST_AGAIN_S):
                    version = await self._list()
                    changed()
                    await self._watch(version, changed)
            except TimeoutError:
                continue
            except ClusterError as error:
                if error.code != _GONE:
                    _logger.warning("cannot see the Jobs: %s", error)
            except Exception:
                _logger.exception("looking at the Jobs failed and is tried again")
            if time.monotonic() - began_s > _LONGEST_PAUSE_S:
                pause_s = _FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def create(self, job: Mapping[str, Any]) -> bool:
        """Create a Job; whether it was not there already. Raises ClusterError.

        The answer is not noted: the watch may have shown something newer by now, or that the Job is gone.
        """
        try:
            async with self._calls("create"):
                await self._client.create(Job.from_dict(dict(job)))
        except ClusterError as error:
            if error.code == _EXISTS:
                return False
            raise
        return True

    async def delete(self, name: str) -> None:
        """Delete a Job and then, in the background, its pods. Raises ClusterError; nothing where it is gone.

        Its uid is of no account: a Job of this name is always one of the same training.
        """
        try:
            async with self._calls("delete"):
                await self._client.delete(Job, name, cascade=CascadeType.BACKGROUND)
        except ClusterError as error:
            if error.code != _MISSING:
                raise

    async def troubles(self) -> dict[str, Trouble]:
        """What is wrong with the latest pod of each Job that has one with a trouble, by the Job's name.

        Raises ClusterError.
        """
        found: dict[str, Trouble] = {}
        async with self._calls("pods"):
            pods = [pod async for pod in self._client.list(Pod, labels=self._labels, chunk_size=_PAGE)]
        for pod in sorted(pods, key=lambda pod: str(pod.metadata.creationTimestamp)):
            trouble = _trouble(pod)
            if trouble is not None:
                found[(pod.metadata.labels or {}).get("batch.kubernetes.io/job-name", "")] = trouble
        return found

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def _list(self) -> str:
        listed = self._client.list(Job, labels=self._labels, chunk_size=_PAGE)
        seen = [_seen(job) async for job in listed]
        self._jobs = {job.name: job for job in seen if job is not None}
        return listed.resourceVersion

    async def _watch(self, version: str, changed: Callable[[], None]) -> None:
        events = self._client.watch(Job, labels=self._labels, resource_version=version)
        async with contextlib.aclosing(events):  # type: ignore[type-var]
            async for kind, job in events:
                seen = _seen(job)
                if seen is None:
                    continue
                assert self._jobs is not None
                self._jobs[seen.name] = seen
                if kind == "DELETED":
                    del self._jobs[seen.name]
                changed()

    @contextlib.asynccontextmanager
    async def _calls(self, call: str) -> AsyncIterator[None]:
        """Raise whatever goes wrong in a call as ClusterError."""
        try:
            yield
        except ApiError as error:
            raise self._error(call, error.status.code or 0, error) from error
        except httpx2.HTTPStatusError as error:
            raise self._error(call, error.response.status_code, error) from error
        # An answer that is no JSON, or of another shape, comes from something in between; lightkube raises a KeyError
        # over an error that does not say what it is.
        except (httpx2.HTTPError, MsgspecError, ConfigError, KeyError, ValueError) as error:
            raise self._error(call, 0, error) from error

    def _error(self, call: str, code: int, error: Exception) -> ClusterError:
        if code not in (_EXISTS, _GONE):
            self._failed(call)
        return ClusterError(code, f"{call}: {code or type(error).__name__}: {error}")


def read_job(body: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A Job as Kubernetes reads it, without what is null; and the paths of fields that no Job has.

    Raises ValueError where something is missing or of a wrong type.
    """
    try:
        job = Job.from_dict(dict(body)).to_dict()
    except ValidationError as error:
        raise ValueError(str(error)) from error
    return job, _lost(body, job, "")


def quantity(text: str) -> Decimal:
    """The number that a quantity, as `16Gi`, stands for. Raises ValueError."""
    parsed = parse_quantity(text)
    assert parsed is not None
    return parsed


def _lost(given: Any, kept: Any, path: str) -> list[str]:
    if isinstance(given, Mapping) and isinstance(kept, Mapping):
        missing = [f"{path}{name}" for name, value in given.items() if name not in kept and value is not None]
        return missing + [
            lost for name in given if name in kept for lost in _lost(given[name], kept[name], f"{path}{name}.")
        ]
    if isinstance(given, list) and isinstance(kept, list):
        pairs = enumerate(zip(given, kept, strict=True))
        return [lost for index, (one, other) in pairs for lost in _lost(one, other, f"{path}{index}.")]
    return []


def _seen(job: Job) -> SeenJob | None:
    """None for a Job that bears our labels and says nothing of its training: somebody else's."""
    assert job.metadata is not None
    try:
        training = TrainingName.parse((job.metadata.annotations or {}).get(TRAINING, ""))
    except MalformedName:
        return None
    status = job.status
    conditions = (status and status.conditions) or []
    ends = [
        f"{condition.reason or condition.type}: {condition.message or 'no message'}"
        for condition in conditions
        if condition.type in ("Complete", "Failed") and condition.status == "True"
    ]
    return SeenJob(
        name=job.metadata.name or "",
        training=training,
        suspended=bool(job.spec and job.spec.suspend),
        pending=bool(status and status.active and not status.ready),
        running=bool(status and status.ready),
        end=ends[0] if ends else "",
    )


def _trouble(pod: Pod) -> Trouble | None:
    for container in (pod.status and pod.status.containerStatuses) or []:
        waiting = container.state and container.state.waiting
        if waiting and waiting.reason not in (None, "ContainerCreating", "PodInitializing"):
            return Trouble(str(waiting.reason), waiting.message or "")
        terminated = container.state and container.state.terminated
        if terminated and terminated.exitCode:
            return Trouble(terminated.reason or "Error", f"exit code {terminated.exitCode}")
    for condition in (pod.status and pod.status.conditions) or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return Trouble(condition.reason or "Unschedulable", condition.message or "")
    return None
