"""A real trainer whose operator requires consent: row 17 of what bad input gets, over the wire."""

from pathlib import Path

import grpc
import pytest

from personae.v1 import dataset_pb2, trainer_pb2_grpc, training_pb2
from personae.v1 import trainer_pb2 as pb
from tests.integration.trainer_calls import CALL_S, details, unique
from tests.real_store import RealStore
from tests.service_process import running_service, service_environment


def test_a_training_without_consent_is_refused_with_its_own_reason(real_store: RealStore, tmp_path: Path) -> None:
    settings = {"PERSONAE_TRAINER_WORKERS": "0", "PERSONAE_TRAINER_REQUIRE_CONSENT": "true"}
    environment = service_environment(real_store, **settings)
    with (
        running_service("trainer_service", environment, tmp_path / "trainer.log") as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        stub = trainer_pb2_grpc.TrainerServiceStub(channel)
        reasons = []
        for consent in (None, dataset_pb2.Consent(given_by="Ada", purpose="a comic")):
            asked = pb.CreateDatasetRequest(dataset_id=unique("asked"), consent=consent)
            dataset = stub.CreateDataset(asked, timeout=CALL_S).dataset
            assert dataset.consent == (consent or dataset_pb2.Consent())
            training = training_pb2.Training(dataset=dataset.name, adapter_id=unique("never"))
            with pytest.raises(grpc.RpcError) as caught:
                stub.CreateTraining(pb.CreateTrainingRequest(training=training, validate_only=True), timeout=CALL_S)
            assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION  # type: ignore[attr-defined]
            reasons.append(details(caught.value)[0])
        # With consent, what is missing next is pictures.
        assert reasons == ["CONSENT_REQUIRED", "DATASET_NOT_READY"]
