"""The retry policy as gRPC itself carries it out, for callers without the client of this package."""

import json
from importlib.resources import files

import grpc
import pytest
from client_fakes import fail

from personae.v1 import inference_pb2, inference_pb2_grpc, trainer_pb2, trainer_pb2_grpc

POLICY = files("personae").joinpath("service_config.json").read_text()
ASK = trainer_pb2.GetTrainingRequest(name="projects/default/trainings/t1")


@pytest.fixture
def channel_to():
    opened = []

    def channel(address, policy=POLICY):
        options = [("grpc.service_config", policy), ("grpc.enable_retries", 1)]
        opened.append(grpc.insecure_channel(address, options=options))
        return opened[-1]

    yield channel
    for channel in opened:
        channel.close()


def failing(code):
    return lambda context: fail(context, code, "in plain words")


@pytest.mark.parametrize("code", ["UNAVAILABLE", "CANCELLED", "ABORTED"])
def test_a_call_that_fails_so_is_asked_again(channel_to, trainer, trainer_address, code):
    trainer.instead["GetTraining"] = [failing(grpc.StatusCode[code])]
    stub = trainer_pb2_grpc.TrainerServiceStub(channel_to(trainer_address))
    assert stub.GetTraining(ASK, timeout=10).training.name


def test_without_the_policy_it_is_not(channel_to, trainer, trainer_address):
    trainer.instead["GetTraining"] = [failing(grpc.StatusCode.CANCELLED)]
    stub = trainer_pb2_grpc.TrainerServiceStub(channel_to(trainer_address, "{}"))
    with pytest.raises(grpc.RpcError):
        stub.GetTraining(ASK, timeout=10)


@pytest.mark.parametrize("code", ["INTERNAL", "DATA_LOSS", "RESOURCE_EXHAUSTED", "NOT_FOUND"])
def test_a_call_that_fails_otherwise_is_not_asked_again(channel_to, trainer, trainer_address, code):
    trainer.instead["GetTraining"] = [failing(grpc.StatusCode[code])]
    stub = trainer_pb2_grpc.TrainerServiceStub(channel_to(trainer_address))
    with pytest.raises(grpc.RpcError) as raised:
        stub.GetTraining(ASK, timeout=10)
    assert raised.value.code() is grpc.StatusCode[code]


def test_a_stream_is_not_begun_again_after_its_first_message(channel_to, inference, inference_address):
    inference.cut_after = [1]
    stub = inference_pb2_grpc.InferenceServiceStub(channel_to(inference_address))
    prompts = [inference_pb2.GenerateRequest.Prompt(text="a picture", seeds=[1, 2, 3])]
    call = stub.Generate(inference_pb2.GenerateRequest(prompts=prompts), timeout=10)
    seen = []
    with pytest.raises(grpc.RpcError) as raised:
        seen.extend(message.WhichOneof("kind") for message in call)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


def test_it_names_both_services():
    (method,) = json.loads(POLICY)["methodConfig"]
    named = {entry["service"] for entry in method["name"]}
    modules = (trainer_pb2, inference_pb2)
    assert named == {
        f"{module.DESCRIPTOR.package}.{name}" for module in modules for name in module.DESCRIPTOR.services_by_name
    }
