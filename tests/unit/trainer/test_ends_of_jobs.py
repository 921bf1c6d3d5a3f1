"""What becomes of a training whose Job comes to an end, or is taken back, in any way that Kubernetes has for it."""

import pytest

from service_kit import schema
from tests.kubernetes_api import Fault
from tests.unit.trainer.jobs_in_a_cluster import ClusterOfTests, eventually, now, template
from tests.unit.trainer.made_things import publish_adapter
from trainer_service.ending import end_training
from trainer_service.events import Ended
from trainer_service.job_template import QUEUE, JobTemplate
from trainer_service.journal import Journal
from trainer_service.lifecycle import State
from trainer_service.training_record import TrainingRecord
from trainer_service.worker.exit_code import ExitCode


def failure(cluster: ClusterOfTests, training: TrainingRecord) -> str:
    """The reason and message with which it failed, in its record and in its event log alike."""
    eventually(lambda: cluster.found(training).state.is_final)
    found = cluster.found(training)
    assert (found.state, found.holder) == (State.FAILED, "")
    assert found.failure is not None
    segment = Journal(cluster.trainer.store, training.name).last_segment()
    assert segment is not None
    assert segment.events[-1].what == Ended(state=State.FAILED, failure=found.failure)
    eventually(lambda: training.queue_key not in list(cluster.trainer.store.keys(schema.queue_prefix())))
    return f"{found.failure.reason}: {found.failure.message}"


def test_a_training_that_its_worker_failed_is_not_failed_again(cluster: ClusterOfTests) -> None:
    training, other = cluster.train(), cluster.train("other")
    with cluster.services():
        eventually(lambda: cluster.has_job(training) and cluster.has_job(other))
        cluster.controller.start(cluster.job(training))
        end_training(cluster.trainer.store, cluster.take(training), State.FAILED, None, now)
        cluster.controller.exit(cluster.job(training), ExitCode.FAILED)
        cluster.controller.exceed_deadline(cluster.job(other))
        assert failure(cluster, other)
    assert cluster.found(training).failure is None
    assert "PodFailurePolicy" in str(cluster.api.objects["jobs"][cluster.job(training)]["status"])


@pytest.mark.parametrize("code", [ExitCode.TRY_AGAIN, ExitCode.HANDED_OVER])
def test_pods_that_hand_over_are_replaced_however_often(cluster: ClusterOfTests, code: ExitCode) -> None:
    training = cluster.train()
    with cluster.services():
        eventually(lambda: cluster.has_job(training))
        for _ in range(10):
            cluster.controller.start(cluster.job(training))
            cluster.take(training)
            cluster.records.change(training.name, lambda record: record.released())
            cluster.controller.exit(cluster.job(training), code)
        eventually(lambda: cluster.sample('jobs{state="waiting"}') == 1)
    assert cluster.found(training).state is State.QUEUED


def test_a_worker_that_is_killed_for_its_memory_again_and_again_fails_its_training_by_that_name(
    cluster: ClusterOfTests,
) -> None:
    training = cluster.train()
    with cluster.services(3):
        eventually(lambda: cluster.has_job(training))
        for _ in range(7):
            cluster.controller.start(cluster.job(training))
            cluster.controller.exit(cluster.job(training), 137, "OOMKilled")
        told = failure(cluster, training)
    assert told.startswith("OUT_OF_MEMORY: ")
    assert "BackoffLimitExceeded" in told
    assert cluster.sample('trainings_ended_total{reason="OUT_OF_MEMORY",state="failed"}') == 1


def test_a_pod_that_never_starts_fails_its_training_at_the_deadline_and_says_what_kept_it(
    cluster: ClusterOfTests, caplog: pytest.LogCaptureFixture
) -> None:
    training = cluster.train()
    with cluster.services():
        eventually(lambda: cluster.has_job(training))
        cluster.controller.hold_up(cluster.job(training), "ImagePullBackOff", "no such image: trainer:2")
        eventually(lambda: "no such image" in caplog.text)
        cluster.controller.exceed_deadline(cluster.job(training))
        told = failure(cluster, training)
    assert told.startswith("WORKER_CRASHED: ")
    assert "DeadlineExceeded" in told
    assert "no such image: trainer:2" in told


def test_a_training_whose_job_ends_under_a_pod_fails_when_its_lease_is_stale(cluster: ClusterOfTests) -> None:
    training = cluster.train()
    with cluster.services(2):
        eventually(lambda: cluster.has_job(training))
        cluster.controller.start(cluster.job(training))
        cluster.take(training)
        cluster.controller.exceed_deadline(cluster.job(training))
        told = failure(cluster, training)
    assert "DeadlineExceeded" in told
    # Taken once by the pod, and once, after nobody renewed it, by the service that ended it.
    assert cluster.found(training).epoch == 2


def test_a_job_that_kueue_takes_back_leaves_its_training_queued(cluster: ClusterOfTests) -> None:
    queued = {"metadata": {"labels": {QUEUE: "gpus"}}}
    cluster.template = JobTemplate(template() | queued, "a-bucket", {})
    training = cluster.train()
    with cluster.services():
        eventually(lambda: cluster.has_job(training))
        eventually(lambda: cluster.sample('jobs{state="suspended"}') == 1)
        assert cluster.api.objects["pods"] == {}
        cluster.controller.resume(cluster.job(training))
        cluster.controller.start(cluster.job(training))
        cluster.take(training)
        cluster.controller.suspend(cluster.job(training))
        eventually(lambda: cluster.found(training).state is State.QUEUED)
        eventually(lambda: cluster.sample('jobs{state="suspended"}') == 1)
        cluster.trainer.trainings.cancel(training.name)
        eventually(lambda: not cluster.has_job(training))


def test_a_training_that_was_published_before_its_job_failed_has_succeeded(cluster: ClusterOfTests) -> None:
    training = cluster.train()
    with cluster.services(2):
        eventually(lambda: cluster.has_job(training))
        cluster.controller.start(cluster.job(training))
        held = cluster.take(training)
        publish_adapter(cluster.trainer.store, held)
        cluster.controller.exceed_deadline(cluster.job(training))
        eventually(lambda: cluster.found(training).state is State.SUCCEEDED)
    segment = Journal(cluster.trainer.store, training.name).last_segment()
    assert segment is not None
    assert segment.events[-1].what == Ended(state=State.SUCCEEDED, adapter=str(training.adapter))


def test_a_training_whose_worker_died_over_its_cancel_needs_no_pod_to_be_cancelled(cluster: ClusterOfTests) -> None:
    training = cluster.train()
    with cluster.services(2):
        eventually(lambda: cluster.has_job(training))
        cluster.controller.start(cluster.job(training))
        cluster.take(training)
        cluster.trainer.trainings.cancel(training.name)
        cluster.controller.exit(cluster.job(training), 137)
        eventually(lambda: cluster.found(training).state is State.CANCELLED)
        eventually(lambda: not cluster.has_job(training))


def test_what_is_wrong_with_pods_need_not_be_known_for_a_training_to_fail(cluster: ClusterOfTests) -> None:
    cluster.api.faults.append(Fault("list pods", code=403, times=1000))
    training = cluster.train()
    with cluster.services():
        eventually(lambda: cluster.has_job(training))
        cluster.controller.exceed_deadline(cluster.job(training))
        assert "DeadlineExceeded" in failure(cluster, training)
