"""How both clients say who they are: TLS, mTLS, tokens that are fetched anew, never sent in plaintext, never shown."""

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from client_fakes import FakeTrainer, ended, fail, png, progress
from google.rpc import error_details_pb2

import personae
from personae.v1 import trainer_pb2_grpc
from tests.certificates import Authority
from tests.unit.client.conftest import HASTY

TOKEN = "a-token-that-nobody-may-see"


class Listening(FakeTrainer):
    """Keeps the metadata of every call."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def saw(self, call, request, context):
        self.heard.append(dict(context.invocation_metadata()).get("authorization"))
        super().saw(call, request, context)


@contextmanager
def secured(trainer, authority, client_authority=None):
    """Serve over TLS, and over mTLS where there is an authority of clients."""
    server = grpc.server(ThreadPoolExecutor(4))
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(trainer, server)
    issued = authority.server()
    roots = client_authority.pem if client_authority else None
    credentials = grpc.ssl_server_credentials([(issued.key, issued.certificate)], roots, client_authority is not None)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@pytest.fixture
def trainer():
    return Listening()


@pytest.fixture
def authority():
    return Authority()


@pytest.fixture
def roots(authority, tmp_path):
    file = tmp_path / "roots.pem"
    file.write_bytes(authority.pem)
    return file


def test_every_kind_of_call_carries_the_token_over_tls(connect, trainer, authority, roots, tmp_path):
    trainer.events = [progress(1), ended(2)]
    with (
        secured(trainer, authority) as address,
        connect(address, patience=HASTY, tls=personae.Tls(roots), token=TOKEN) as client,
    ):
        client.create_dataset("d1", pictures=[png()])
        list(client.get_training("t1").events())
        client.download_adapter("micah", tmp_path / "adapter.safetensors")
    assert len(trainer.heard) >= 5
    assert set(trainer.heard) == {f"Bearer {TOKEN}"}


def test_a_token_is_fetched_before_each_call(connect, trainer, trainer_address):
    tokens = iter(["first", "second"])
    with connect(trainer_address, patience=HASTY, token=lambda: next(tokens)) as client:
        client.get_dataset("d1")
        client.get_dataset("d1")
    assert trainer.heard == ["Bearer first", "Bearer second"]


def test_without_a_token_none_is_sent(client, trainer):
    client.get_dataset("d1")
    assert trainer.heard == [None]


def test_a_certificate_of_its_own_is_shown_to_a_server_that_asks_for_one(connect, trainer, authority, roots, tmp_path):
    clients = Authority("of clients")
    certificate, key = clients.client("spiffe://x/y").write(tmp_path, "client")
    impatient = personae.Patience(unanswered_s=0.2)
    with secured(trainer, authority, clients) as address:
        with connect(address, patience=HASTY, tls=personae.Tls(roots, certificate, key)) as client:
            assert client.get_dataset("d1")
        with (
            connect(address, patience=impatient, tls=personae.Tls(roots)) as client,
            pytest.raises(personae.Unavailable),
        ):
            client.get_dataset("d1")


def test_the_servers_name_may_be_another_than_the_hosts(connect, trainer, authority, roots):
    with secured(trainer, authority) as address:
        with connect(address, patience=HASTY, tls=personae.Tls(roots, server_name="localhost")) as client:
            assert client.get_dataset("d1")
        impatient = personae.Patience(unanswered_s=0.2)
        with (
            connect(address, patience=impatient, tls=personae.Tls(roots, server_name="other")) as client,
            pytest.raises(personae.Unavailable),
        ):
            client.get_dataset("d1")


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1:50051",
        "example.com:50051",
        "dns:///example.com:1",
        "127.0.0.1.example.com:1",
        "ipv4:127.0.0.1:1,10.0.0.1:1",
    ],
)
@pytest.mark.parametrize("make", [personae.Client, personae.aio.Client], ids=["sync", "aio"])
def test_a_token_is_not_sent_in_plaintext_to_another_machine(make, address):
    for addresses in ((address, None), (None, address)):
        with pytest.raises(personae.InvalidRequest, match="in plaintext") as raised:
            make(*addresses, token=TOKEN)
        assert TOKEN not in str(raised.value)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/x", "ipv4:127.0.0.1:1", "ipv4:127.0.0.1:1,127.0.0.2:1"],
)
def test_this_machine_may_have_it(address):
    personae.Client(address, token=TOKEN).close()


def test_a_certificate_without_its_key_is_refused():
    with pytest.raises(personae.InvalidRequest, match="needs its key"):
        personae.Client("127.0.0.1:1", tls=personae.Tls(certificate="x.pem"))


@pytest.mark.parametrize("token", ["", f"{TOKEN}\n", f"{TOKEN} x", f"{TOKEN}\N{SNOWMAN}"])
def test_a_token_that_no_call_can_carry_is_refused_and_not_shown(connect, trainer_address, token):
    with (
        connect(trainer_address, token=token) as client,
        pytest.raises(personae.InvalidRequest, match="token") as raised,
    ):
        client.get_dataset("d1")
    assert TOKEN not in str(raised.value)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, personae.Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, personae.PermissionDenied),
    ],
)
def test_a_refusal_has_its_error_and_tells_no_token(connect, trainer, trainer_address, caplog, code, error):
    info = error_details_pb2.ErrorInfo(reason="SOME_REASON", domain="personae")
    trainer.instead["GetDataset"] = [lambda context: fail(context, code, "in plain words", info)]
    with (
        caplog.at_level(logging.DEBUG),
        connect(trainer_address, patience=HASTY, token=TOKEN) as client,
        pytest.raises(error, match="in plain words") as raised,
    ):
        client.get_dataset("d1")
    assert raised.value.reason == "SOME_REASON"
    connection = personae.Client(trainer_address, token=TOKEN)._trainer
    told = [repr(raised.value), str(raised.value.__cause__), caplog.text, repr(connection._access)]
    assert all(TOKEN not in text for text in told)
    connection.close()


def test_the_command_takes_a_token_from_the_environment_or_a_file_and_never_as_an_argument(
    personae_command, trainer, monkeypatch, tmp_path
):
    monkeypatch.setenv("PERSONAE_TOKEN", "of-the-environment")
    assert personae_command("datasets")[0] == 0
    file = tmp_path / "token"
    file.write_text("of-the-file\n")
    assert personae_command("--token-file", file, "datasets")[0] == 0
    assert trainer.heard == ["Bearer of-the-environment", "Bearer of-the-file"]
    code, _, said = personae_command("--token", TOKEN, "datasets")
    assert code == 2
    assert TOKEN not in said
    code, _, said = personae_command("--token-file", tmp_path / "gone", "datasets")
    assert (code, "gone" in said) == (1, True)


def test_every_command_that_changes_something_says_who_calls(personae_command, trainer, monkeypatch, tmp_path):
    (tmp_path / "lora.safetensors").write_bytes(b"x")
    monkeypatch.setenv("PERSONAE_TOKEN", TOKEN)
    for words in (
        ["train", "projects/default/datasets/d1", "--name=n", "--detach"],
        ["import", tmp_path / "lora.safetensors", "--name=n", "--base-model=b"],
        ["delete", "datasets/d1", "--yes"],
    ):
        assert personae_command(*words)[0] == 0
    assert set(trainer.heard) == {f"Bearer {TOKEN}"}
    assert {"CreateTraining", "ImportAdapter", "DeleteDataset"} <= trainer.requests.keys()


def test_the_command_speaks_tls(personae_command, trainer, authority, roots, monkeypatch):
    with secured(trainer, authority) as address:
        monkeypatch.setenv("PERSONAE_TRAINER_ADDRESS", address)
        assert personae_command("--tls-ca", roots, "datasets")[0] == 0
        monkeypatch.setenv("PERSONAE_CLIENT_TLS_CA", str(roots))
        assert personae_command("datasets")[0] == 0
    monkeypatch.setenv("PERSONAE_TRAINER_ADDRESS", "example.com:1")
    monkeypatch.delenv("PERSONAE_CLIENT_TLS_CA")
    monkeypatch.setenv("PERSONAE_TOKEN", TOKEN)
    code, out, said = personae_command("datasets")
    assert (code, "plaintext" in said, TOKEN in out + said) == (2, True, False)
