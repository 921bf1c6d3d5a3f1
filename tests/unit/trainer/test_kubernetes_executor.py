"""Trainings and their Jobs: what one service, and several at once, make of an API server that answers as it likes."""

from pathlib import Path

import pytest

from tests.kubernetes_api import Fault
from tests.unit.trainer.jobs_in_a_cluster import ClusterOfTests, eventually, now
from trainer_service import kubernetes_cluster
from trainer_service.deletion import Deletion
from trainer_service.ending import end_training
from trainer_service.lifecycle import State
from trainer_service.worker.exit_code import ExitCode


@pytest.mark.parametrize("services", [1, 3])
def test_each_training_has_one_job_however_many_services_there_are(cluster: ClusterOfTests, services: int) -> None:
    with cluster.services(services):
        trainings = [cluster.train(f"cat-{index}") for index in range(4)]
        eventually(lambda: all(cluster.has_job(training) for training in trainings))
        for training in trainings:
            cluster.controller.start(cluster.job(training))
            cluster.take(training)
        eventually(lambda: cluster.sample('jobs{state="running"}') == 4)
    assert len(cluster.api.objects["jobs"]) == 4
    assert cluster.sample("job_creations_total") == 4


def test_a_service_that_died_over_a_create_is_followed_by_one_that_finds_the_job(cluster: ClusterOfTests) -> None:
    training = cluster.train()
    cluster.api.faults.append(Fault("create jobs", code=500, performed=True, delay_s=0.2))
    with cluster.services():
        # It is stopped before it is answered; the Job comes into being after its death.
        eventually(lambda: cluster.counted("create jobs"))
    assert not cluster.has_job(training)
    with cluster.services():
        eventually(lambda: cluster.sample('jobs{state="waiting"}') == 1)
        cluster.controller.start(cluster.job(training))
        eventually(lambda: cluster.sample('jobs{state="running"}') == 1)
    assert len(cluster.api.objects["jobs"]) == 1


@pytest.mark.parametrize("code", [409, 422, 429, 500])
def test_a_create_that_is_not_taken_at_once_is_repeated(cluster: ClusterOfTests, code: int) -> None:
    cluster.api.faults.append(Fault("create jobs", code=code, times=3, delay_s=0.05))
    first, second = cluster.train(), cluster.train("other")
    with cluster.services():
        eventually(lambda: cluster.has_job(first) and cluster.has_job(second))
    assert cluster.found(first).state is State.QUEUED
    if code != 409:
        assert cluster.sample('cluster_failures_total{call="create"}') == 3


@pytest.mark.parametrize("code", [401, 410, 429, 500])
def test_jobs_are_seen_again_after_lists_and_watches_that_failed(cluster: ClusterOfTests, code: int) -> None:
    cluster.api.faults += [Fault("list jobs", code=code, times=2), Fault("watch jobs", code=code, times=2)]
    training = cluster.train()
    with cluster.services():
        eventually(lambda: cluster.has_job(training))
        eventually(lambda: cluster.sample('jobs{state="waiting"}') == 1)
        cluster.controller.start(cluster.job(training))
        eventually(lambda: cluster.sample('jobs{state="running"}') == 1)


def test_what_a_watch_missed_is_listed_once_the_server_has_forgotten_it(cluster: ClusterOfTests) -> None:
    training = cluster.train()
    with cluster.services():
        eventually(lambda: cluster.has_job(training))
        with cluster.api.changed:
            cluster.controller.start(cluster.job(training))
            cluster.api.forget_history()
        eventually(lambda: cluster.sample('jobs{state="running"}') == 1)
    assert cluster.counted("list jobs") >= 2


def test_a_watch_that_says_nothing_for_long_is_not_trusted(
    cluster: ClusterOfTests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_cluster, "_LIST_AGAIN_S", 0.1)
    with cluster.services():
        eventually(lambda: cluster.counted("list jobs") >= 3)


def test_a_token_that_was_exchanged_is_read_again(cluster: ClusterOfTests, tmp_path: Path) -> None:
    with cluster.services():
        eventually(lambda: cluster.counted("watch jobs"))
        cluster.api.token = "the-next-token"
        (tmp_path / "token").write_text(cluster.api.token)
        training = cluster.train()
        eventually(lambda: cluster.has_job(training))


def test_a_job_that_was_deleted_by_hand_is_made_again_once_its_training_is_free(cluster: ClusterOfTests) -> None:
    training = cluster.train()
    with cluster.services(2):
        eventually(lambda: cluster.has_job(training))
        first = cluster.api.objects["jobs"][cluster.job(training)]["metadata"]["uid"]
        cluster.controller.start(cluster.job(training))
        cluster.take(training)
        cluster.api.drop("jobs", cluster.job(training))
        eventually(lambda: cluster.has_job(training) and not cluster.found(training).holder)
    assert cluster.api.objects["jobs"][cluster.job(training)]["metadata"]["uid"] != first
    found = cluster.found(training)
    assert (found.state, found.holder, found.epoch) == (State.QUEUED, "", 1)


def test_a_cancelled_training_s_job_goes_when_it_has_not_started(cluster: ClusterOfTests) -> None:
    training = cluster.train()
    with cluster.services(2):
        eventually(lambda: cluster.has_job(training))
        assert cluster.trainer.trainings.cancel(training.name).state is State.CANCELLED
        eventually(lambda: not cluster.has_job(training))
        # A Job's pods go after it.
        eventually(lambda: cluster.api.objects["pods"] == {})


def test_a_deleted_training_s_job_goes_too(cluster: ClusterOfTests) -> None:
    training = cluster.train()
    with cluster.services():
        eventually(lambda: cluster.has_job(training))
        Deletion(cluster.trainer.store, now).delete_dataset(training.dataset_name, "")
        eventually(lambda: not cluster.has_job(training))


def test_a_job_that_runs_is_left_to_its_worker_to_cancel(cluster: ClusterOfTests) -> None:
    training, other = cluster.train(), cluster.train("other")
    with cluster.services():
        eventually(lambda: cluster.has_job(training) and cluster.has_job(other))
        cluster.controller.start(cluster.job(training))
        held = cluster.take(training)
        asked = cluster.trainer.trainings.cancel(training.name)
        assert (asked.state, asked.cancel_requested) == (State.PREPARING, True)
        # Whatever a service would do to that Job, it has done when it has seen to another that was cancelled later.
        cluster.trainer.trainings.cancel(other.name)
        eventually(lambda: not cluster.has_job(other))
        assert cluster.has_job(training)
        end_training(cluster.trainer.store, held, State.CANCELLED, None, now)
        cluster.controller.exit(cluster.job(training), ExitCode.DONE, "Completed")
        eventually(lambda: cluster.sample('jobs{state="finished"}') == 1)
    assert cluster.found(training).state is State.CANCELLED


def test_a_cancelled_training_whose_job_comes_to_its_end_first_is_cancelled_and_not_failed(
    cluster: ClusterOfTests,
) -> None:
    training = cluster.train()
    with cluster.services():
        eventually(lambda: cluster.has_job(training))
        cluster.controller.start(cluster.job(training))
        cluster.take(training)
        cluster.trainer.trainings.cancel(training.name)
        cluster.controller.exceed_deadline(cluster.job(training))
        eventually(lambda: cluster.found(training).state is State.CANCELLED)


def test_jobs_of_another_deployment_are_left_alone(cluster: ClusterOfTests) -> None:
    training = cluster.train()
    theirs = cluster.template.job(training.name, 0)
    theirs["metadata"]["labels"] |= {"personae/deployment": "another"}
    theirs["metadata"]["name"] = "personae-theirs"
    cluster.trainer.trainings.cancel(training.name)
    assert cluster.api.create(theirs)[0] == 201
    other = cluster.train("other")
    with cluster.services():
        eventually(lambda: cluster.has_job(other))
        cluster.trainer.trainings.cancel(other.name)
        eventually(lambda: not cluster.has_job(other))
    assert list(cluster.api.objects["jobs"]) == ["personae-theirs"]
