"""TLS and mTLS of a server as it is composed: who gets in, identities by certificate, rotation without a restart."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service_kit.access import open_access
from service_kit.serving import Endpoint, serve_until_stopped
from service_kit.settings import AccessSettings, SettingsError
from tests.certificates import Authority
from tests.identities import bearer, listed, write_identities

PATIENCE_S = 10.0
SPIFFE = "spiffe://cluster/ns/shop/sa/backend"
SERVING = health_pb2.HealthCheckResponse.SERVING
Scenario = Callable[[str, str], Awaitable[None]]


def served(settings: AccessSettings, capsys: pytest.CaptureFixture[str], scenario: Scenario) -> None:
    """Run a scenario with the addresses of a server and of its health port."""

    async def run() -> None:
        stopping = asyncio.Event()
        endpoint = Endpoint("127.0.0.1:0", "PERSONAE_X", "127.0.0.1:0", "PERSONAE_Y", reflection=True)
        access = open_access(settings)
        server = asyncio.create_task(
            serve_until_stopped(endpoint, lambda server: None, ["x.Service"], 0.1, stopping, access)
        )
        printed = ""
        while "\n" not in printed:
            await asyncio.sleep(0.01)
            assert not server.done()
            printed += capsys.readouterr().out
        line = json.loads(printed)
        try:
            await scenario(line["address"], line["health_address"])
        finally:
            stopping.set()
            await server

    asyncio.run(asyncio.wait_for(run(), 6 * PATIENCE_S))


def channel(address: str, authority: Authority, client: Any = None) -> grpc.aio.Channel:
    """A channel with a connection of its own."""
    pair = (client.key, client.certificate) if client else (None, None)
    # Connections are shared by equal channels otherwise, and no new handshake would happen.
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(authority.pem, *pair), options)


async def health(opened: grpc.aio.Channel, metadata: Any = ()) -> int:
    async with opened:
        request = health_pb2.HealthCheckRequest(service="x.Service")
        stub = health_pb2_grpc.HealthStub(opened)
        return int((await stub.Check(request, timeout=PATIENCE_S, metadata=metadata)).status)


async def services(opened: grpc.aio.Channel, metadata: Any = ()) -> list[str]:
    """What reflection lists: an rpc that takes an identity."""

    async def asking() -> Any:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    async with opened:
        stub = reflection_pb2_grpc.ServerReflectionStub(opened)
        (answer,) = [
            found async for found in stub.ServerReflectionInfo(asking(), timeout=PATIENCE_S, metadata=metadata)
        ]
        return [service.name for service in answer.list_services_response.service]


async def refused(asking: Awaitable[Any]) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asking
    return caught.value.code()


def test_tls_is_spoken_on_the_main_port_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = Authority()
    certificate, key = ours.server().write(tmp_path, "server")

    async def scenario(address: str, health_address: str) -> None:
        assert await health(channel(address, ours)) == SERVING
        assert await health(grpc.aio.insecure_channel(health_address)) == SERVING
        assert await refused(health(grpc.aio.insecure_channel(address))) == grpc.StatusCode.UNAVAILABLE
        assert await refused(health(channel(address, Authority("another")))) == grpc.StatusCode.UNAVAILABLE

    served(AccessSettings(tls_certificate=certificate, tls_key=key), capsys, scenario)


def test_with_a_client_authority_a_certificate_of_it_is_required_and_names_who_calls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, clients = Authority(), Authority("of clients")
    certificate, key = ours.server().write(tmp_path, "server")
    client_ca = tmp_path / "clients.pem"
    client_ca.write_bytes(clients.pem)
    entry = listed("shop", ["viewer"], ["shop"], [SPIFFE])
    settings = AccessSettings(
        tls_certificate=certificate,
        tls_key=key,
        tls_client_ca=client_ca,
        tokens_file=write_identities(tmp_path / "tokens.json", entry),
    )

    async def scenario(address: str, health_address: str) -> None:
        assert "x.Service" in await services(channel(address, ours, clients.client(SPIFFE)))
        stranger = channel(address, ours, clients.client("spiffe://cluster/ns/other/sa/x"))
        assert await refused(services(stranger)) == grpc.StatusCode.UNAUTHENTICATED
        with_token = channel(address, ours, clients.client())
        assert "x.Service" in await services(with_token, bearer("shop"))
        for client in (None, Authority("of clients").client(SPIFFE)):
            assert (
                await refused(services(channel(address, ours, client), bearer("shop"))) == grpc.StatusCode.UNAVAILABLE
            )
        assert await health(grpc.aio.insecure_channel(health_address)) == SERVING

    served(settings, capsys, scenario)


def test_certificates_rotate_while_a_stream_stays_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    old, new = Authority("old"), Authority("new")
    certificate, key = old.server().write(tmp_path, "server")

    async def scenario(address: str, health_address: str) -> None:
        async with channel(address, old) as opened:
            watch = health_pb2_grpc.HealthStub(opened).Watch(health_pb2.HealthCheckRequest(service="x.Service"))
            assert (await watch.read()).status == SERVING

            # Half way through, the pair does not fit: the old one stays.
            issued = new.server()
            certificate.write_bytes(issued.certificate)
            assert await health(channel(address, old)) == SERVING
            assert "is not the key of the certificate" in caplog.text
            key.write_bytes(issued.key)
            assert await health(channel(address, new)) == SERVING
            assert await refused(health(channel(address, old))) == grpc.StatusCode.UNAVAILABLE

            key.write_text("nonsense")
            assert await health(channel(address, new)) == SERVING
            assert "no private key in PEM" in caplog.text

            # The stream from before goes on, and so does its connection: another could not be made with the old root.
            assert not watch.done()
            assert await health_pb2_grpc.HealthStub(opened).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
            watch.cancel()

    served(AccessSettings(tls_certificate=certificate, tls_key=key), capsys, scenario)


def test_client_authorities_rotate_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, before, after = Authority(), Authority("before"), Authority("after")
    certificate, key = ours.server().write(tmp_path, "server")
    client_ca = tmp_path / "clients.pem"
    client_ca.write_bytes(before.pem)

    async def scenario(address: str, health_address: str) -> None:
        assert await health(channel(address, ours, before.client())) == SERVING
        client_ca.write_bytes(after.pem)
        assert await health(channel(address, ours, after.client())) == SERVING
        assert await refused(health(channel(address, ours, before.client()))) == grpc.StatusCode.UNAVAILABLE

    served(AccessSettings(tls_certificate=certificate, tls_key=key, tls_client_ca=client_ca), capsys, scenario)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"tls_certificate": "cert"}, ["TLS_KEY: missing"]),
        ({"tls_client_ca": "cert"}, ["TLS_CERTIFICATE: missing", "TLS_KEY: missing"]),
        ({"tls_certificate": "cert", "tls_key": "gone"}, ["TLS_CERTIFICATE: .*gone cannot be read"]),
        ({"tls_certificate": "nonsense", "tls_key": "key"}, ["TLS_CERTIFICATE: .*nonsense holds no certificates"]),
        ({"tls_certificate": "cert", "tls_key": "other"}, ["TLS_CERTIFICATE: .*other is not the key"]),
        ({"tls_certificate": "cert", "tls_key": "key", "tls_client_ca": "nonsense"}, ["TLS_CERTIFICATE: .*nonsense"]),
        ({"tokens_file": "gone", "tls_key": "key"}, ["TOKENS_FILE: .*gone", "TLS_CERTIFICATE: missing"]),
        ({"jwt_key_file": "key"}, ["JWT_ALGORITHM: missing", "JWT_AUDIENCE: missing"]),
        ({"jwt_issuer": "x"}, ["JWT_KEY_FILE: missing", "JWT_ALGORITHM: missing", "JWT_AUDIENCE: missing"]),
        ({"jwt_key_file": "key", "jwt_algorithm": "RS256", "jwt_audience": "x"}, ["JWT_KEY_FILE: .*private key"]),
    ],
)
def test_settings_that_go_half_of_a_way_stop_the_start_by_name(
    tmp_path: Path, settings: dict[str, str], named: list[str]
) -> None:
    authority = Authority()
    issued = authority.server()
    (tmp_path / "cert").write_bytes(issued.certificate)
    (tmp_path / "key").write_bytes(issued.key)
    (tmp_path / "other").write_bytes(authority.server().key)
    (tmp_path / "nonsense").write_text("nonsense")
    paths = {
        name: tmp_path / value if (tmp_path / value).exists() or value == "gone" else value
        for name, value in settings.items()
    }
    with pytest.raises(SettingsError) as caught:
        open_access(AccessSettings(**paths))
    for text in named:
        assert caught.match(f"PERSONAE_{text}")


@pytest.mark.parametrize(
    ("address", "settings", "words"),
    [
        ("0.0.0.0:1", {}, "may do everything"),
        ("[::]:1", {}, "may do everything"),
        ("127.0.0.1:1", {}, ""),
        ("localhost:1", {}, ""),
        ("0.0.0.0:1", {"tokens_file"}, "tokens travel .* in plaintext"),
        ("0.0.0.0:1", {"tls_certificate", "tls_key"}, "that TLS .* accepts may do everything"),
        ("0.0.0.0:1", {"tls_certificate", "tls_key", "tokens_file"}, ""),
    ],
)
def test_what_is_left_open_beyond_this_machine_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, address: str, settings: set[str], words: str
) -> None:
    certificate, key = Authority().server().write(tmp_path, "server")
    tokens = write_identities(tmp_path / "tokens.json", listed("shop", ["viewer"], ["shop"]))
    files = {"tls_certificate": certificate, "tls_key": key, "tokens_file": tokens}
    open_access(AccessSettings(**{name: files[name] for name in settings})).warn(address)
    assert bool(caplog.text) == bool(words)
    if words:
        assert re.search(words, caplog.text)
