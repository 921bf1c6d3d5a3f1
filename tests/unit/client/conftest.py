"""The fake services, each on a port of its own, and clients that lose patience quickly."""

import pytest
from client_fakes import FakeInference, FakeTrainer, served

import personae
from personae.v1 import inference_pb2_grpc, trainer_pb2_grpc

HASTY = personae.Patience(call_s=10, unanswered_s=5, outage_s=5, silence_s=0.4, first_pause_s=0.01)


@pytest.fixture
def trainer():
    return FakeTrainer()


@pytest.fixture
def inference():
    return FakeInference()


@pytest.fixture
def trainer_address(trainer):
    with served(trainer_pb2_grpc.add_TrainerServiceServicer_to_server, trainer) as address:
        yield address


@pytest.fixture
def inference_address(inference):
    with served(inference_pb2_grpc.add_InferenceServiceServicer_to_server, inference) as address:
        yield address


@pytest.fixture
def client(trainer_address, inference_address):
    with personae.Client(trainer_address, inference_address, patience=HASTY) as client:
        yield client
