"""Trainings carried out by Jobs: a real service, a real store, and pods that are real worker processes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import yaml

from personae.v1 import trainer_pb2_grpc, training_pb2
from tests.integration.trainer_calls import UNJUDGED, UNJUDGED_CONFIG, TrainerCalls
from tests.job_controller import JobController
from tests.kubernetes_api import KubernetesApi, Object, running_api
from tests.real_store import RealStore, free_ports
from tests.service_process import running_service, service_environment
from trainer_service.worker.exit_code import ExitCode

# The store, the service and two workers, which import torch, take half a minute to start.
pytestmark = pytest.mark.slow

State = training_pb2.Training.State
STEPS, CHECKPOINT_EVERY = 30, 5
CONFIG = UNJUDGED_CONFIG | {"steps": STEPS, "checkpoint_every": CHECKPOINT_EVERY}
KEYS = {"access_key": "PERSONAE_S3_ACCESS_KEY", "secret_key": "PERSONAE_S3_SECRET_KEY"}
TEMPLATE: Object = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "worker",
                        "env": [
                            {"name": name, "valueFrom": {"secretKeyRef": {"name": "personae-s3", "key": key}}}
                            for key, name in KEYS.items()
                        ]
                        + [{"name": "OMP_NUM_THREADS", "value": "1"}],
                        "resources": {"limits": {"nvidia.com/gpu": 0}},
                    }
                ]
            }
        }
    },
}


@pytest.fixture(scope="module")
def cluster(real_store: RealStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[JobController, Path]]:
    """An API server whose pods are processes, and its kubeconfig."""
    environment = real_store.environment()
    secrets = {f"personae-s3/{key}": environment[name] for key, name in KEYS.items()}
    with running_api(tmp_path_factory.mktemp("cluster")) as (api, config):
        controller = JobController(api, secrets)
        try:
            yield controller, config
        finally:
            controller.kill_all()
            assert api.refused == []


@pytest.fixture(scope="module")
def trainer(
    real_store: RealStore, cluster: tuple[JobController, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TrainerCalls]:
    folder = tmp_path_factory.mktemp("trainer")
    (folder / "job.yaml").write_text(yaml.safe_dump(TEMPLATE))
    settings = {
        "PERSONAE_EXECUTOR": "kubernetes",
        "PERSONAE_KUBERNETES_JOB_TEMPLATE": str(folder / "job.yaml"),
        "PERSONAE_KUBERNETES_IMAGE": "personae/trainer:test",
        "KUBECONFIG": str(cluster[1]),
    }
    environment = service_environment(real_store, **UNJUDGED, **settings)
    with (
        running_service("trainer_service", environment, folder / "trainer.log") as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        yield TrainerCalls(trainer_pb2_grpc.TrainerServiceStub(channel))


@pytest.fixture(scope="module")
def dataset(trainer: TrainerCalls) -> str:
    return trainer.dataset(4)


@pytest.fixture(scope="module")
def uninterrupted(trainer: TrainerCalls, dataset: str) -> training_pb2.Training:
    """A training that nothing happened to."""
    training = trainer.train(dataset, **CONFIG)
    ended = trainer.finish(training.name)
    assert ended.state == State.STATE_SUCCEEDED, ended
    return training


def job_of(api: KubernetesApi, training: str) -> Object:
    """The Job of a training."""
    (found,) = (
        job for job in api.objects["jobs"].values() if job["metadata"]["annotations"]["personae/training"] == training
    )
    return found


def conditions(api: KubernetesApi, training: str) -> list[tuple[str, str]]:
    with api.changed:
        api.changed.wait_for(lambda: "conditions" in job_of(api, training)["status"], timeout=60)
        return [(found["type"], found["reason"]) for found in job_of(api, training)["status"]["conditions"]]


def test_a_training_is_carried_out_by_its_job(
    cluster: tuple[JobController, Path], uninterrupted: training_pb2.Training, trainer: TrainerCalls
) -> None:
    assert conditions(cluster[0].api, uninterrupted.name) == [("Complete", "CompletionsReached")]
    assert {event.epoch for event in trainer.events(uninterrupted.name)} == {0, 1}


def test_a_worker_that_finds_no_store_asks_for_another_try(real_store: RealStore) -> None:
    environment = service_environment(real_store, PERSONAE_S3_ENDPOINT=f"http://127.0.0.1:{free_ports(1)[0]}")
    command = [sys.executable, "-m", "trainer_service.worker", "projects/default/trainings/any"]
    assert subprocess.run(command, env=environment, timeout=300, check=False).returncode == ExitCode.TRY_AGAIN


def test_a_preempted_pod_hands_over_and_the_next_ends_the_training_bit_equal(
    cluster: tuple[JobController, Path], trainer: TrainerCalls, dataset: str, uninterrupted: training_pb2.Training
) -> None:
    controller, _ = cluster
    training = trainer.train(dataset, **CONFIG)
    events = trainer.events(training.name)
    next(event for event in events if event.checkpoint_saved.step == CHECKPOINT_EVERY)
    controller.preempt(job_of(controller.api, training.name)["metadata"]["name"])
    rest = list(events)
    assert rest[-1].ended.state == State.STATE_SUCCEEDED
    assert [event.notice.reason for event in rest if event.WhichOneof("kind") == "notice"] == ["RESUMED"]
    assert conditions(controller.api, training.name) == [("Complete", "CompletionsReached")]
    assert job_of(controller.api, training.name)["status"].get("failed", 0) == 0
    assert trainer.adapter_file(training.adapter) == trainer.adapter_file(uninterrupted.adapter)
