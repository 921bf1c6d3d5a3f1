"""The fake services, each on a port of its own, and both clients, losing patience quickly."""

import pytest
from client_fakes import FakeTrainer, served
from driven_client import driven_client
from fake_inference import FakeInference

import personae
from personae.cli.__main__ import main
from personae.patience import Outage
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


@pytest.fixture(params=[personae.Client, driven_client], ids=["sync", "aio"])
def connect(request):
    """Makes a client; whatever uses it is run with the synchronous one and with that for asyncio."""
    return request.param


@pytest.fixture
def client(connect, trainer_address, inference_address):
    with connect(trainer_address, inference_address, patience=HASTY) as client:
        yield client


@pytest.fixture
def pauses(monkeypatch):
    """How long each pause before a repeat would have been; none is made."""
    made = []
    decide = Outage.pause_s

    def record(outage, error, now_s):
        made.append(decide(outage, error, now_s))
        return 0.0

    monkeypatch.setattr(Outage, "pause_s", record)
    return made


@pytest.fixture
def personae_command(monkeypatch, capsys, trainer_address, inference_address):
    """Runs the command against the fake services; gives its exit code, stdout and stderr."""
    monkeypatch.setenv("PERSONAE_TRAINER_ADDRESS", trainer_address)
    monkeypatch.setenv("PERSONAE_INFERENCE_ADDRESS", inference_address)
    monkeypatch.setattr("personae.cli.__main__.signal.signal", lambda number, handler: None)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["personae", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return left.value.code or 0, said.out, said.err

    return run


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "broken.png"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path
