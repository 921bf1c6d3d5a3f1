"""Fixtures of the trainer's unit tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.job_controller import JobController
from tests.kubernetes_api import running_api
from tests.unit.trainer.import_calls import ImportService
from tests.unit.trainer.jobs_in_a_cluster import ClusterOfTests, documented_rights
from tests.unit.trainer.trainer_fakes import Trainer
from trainer_service import kubernetes_cluster, kubernetes_executor, training_record

LEASE_S = 0.3


@pytest.fixture
def trainer() -> Trainer:
    return Trainer()


@pytest.fixture
def service() -> ImportService:
    return ImportService()


@pytest.fixture
def cluster(trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterOfTests]:
    monkeypatch.setattr(training_record, "TAKEOVER_PATIENCE_S", LEASE_S)
    monkeypatch.setattr(kubernetes_executor, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(kubernetes_executor, "_PAUSE_S", 0.02)
    monkeypatch.setattr(kubernetes_cluster, "_FIRST_PAUSE_S", 0.05)
    trainer.dataset(count=3)
    with running_api(tmp_path) as (api, config):
        monkeypatch.setenv("KUBECONFIG", str(config))
        yield ClusterOfTests(trainer, api, JobController(api))
        assert api.refused == []
        assert set(api.calls) <= {f"{verb} {kind}" for verb, kind in documented_rights()}
