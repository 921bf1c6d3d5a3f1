"""Four servers behind one address: equal adapters meet on one of them, and only a dead one's adapters move."""

from contextlib import ExitStack

import pytest
from client_fakes import served
from driven_client import driven_client
from fake_inference import FakeInference

import personae
from personae import routing
from personae.v1 import inference_pb2_grpc
from tests.unit.client.conftest import HASTY

ADAPTERS = [f"adapter-{place}" for place in range(30)]


class Fleet:
    """Four servers and the address of all of them; each can be stopped."""

    def __init__(self) -> None:
        self.servers = [FakeInference() for _ in range(4)]
        self._running = [ExitStack() for _ in self.servers]
        add = inference_pb2_grpc.add_InferenceServiceServicer_to_server
        ports = [stack.enter_context(served(add, one)) for stack, one in zip(self._running, self.servers, strict=True)]
        self.address = f"ipv4:{','.join(ports)}"

    def stop(self, server: int) -> None:
        self._running[server].close()

    def homes(self, call: str = "Generate") -> dict[str, set[int]]:
        """Which servers were asked about each adapter."""
        homes: dict[str, set[int]] = {}
        for place, server in enumerate(self.servers):
            for request in server.requests[call]:
                name = request.adapter if call == "PreloadAdapter" else request.adapters[0].adapter
                homes.setdefault(name.split("/")[3], set()).add(place)
            server.requests[call].clear()
        return homes


@pytest.fixture
def fleet():
    fleet = Fleet()
    yield fleet
    for place in range(4):
        fleet.stop(place)


@pytest.fixture
def client(connect, fleet):
    with connect(inference=fleet.address, patience=HASTY, adapter_affinity=True) as client:
        yield client


def generate_with_each(client, adapters=ADAPTERS):
    for adapter in adapters:
        assert len(list(client.generate("a", adapter=adapter))) == 1


def test_equal_adapters_meet_on_one_server_and_different_ones_spread(client, fleet):
    for _ in range(2):
        generate_with_each(client)
    homes = fleet.homes()
    assert homes.keys() == set(ADAPTERS)
    assert all(len(asked) == 1 for asked in homes.values())
    assert set.union(*homes.values()) == {0, 1, 2, 3}
    # Bringing it near, another version, a batch and a second adapter beside it are about the same adapter.
    client.preload_adapter("adapter-1/versions/4")
    assert fleet.homes("PreloadAdapter") == {"adapter-1": homes["adapter-1"]}
    list(client.generate("a", adapter="adapter-1/versions/9", adapters=["style"]))
    assert len(list(client.generate_many(map(str, range(40)), adapter="adapter-1"))) == 40
    assert fleet.homes() == {"adapter-1": homes["adapter-1"]}


def test_only_the_adapters_of_a_server_that_stops_move(client, fleet):
    generate_with_each(client)
    before = fleet.homes()
    fleet.stop(1)
    generate_with_each(client)
    after = fleet.homes()
    assert {name for name in ADAPTERS if before[name] == {1}}
    for name in ADAPTERS:
        assert after[name] <= {0, 2, 3}
        assert before[name] == {1} or after[name] == before[name]


def test_what_a_dying_server_did_not_bring_comes_from_the_next(client, fleet):
    for server in fleet.servers:
        server.cut_after = [1]
    images = client.generate("a", adapter="adapter-1", seeds=[1, 2, 3])
    first = next(images)
    (home,) = fleet.homes()["adapter-1"]
    fleet.stop(home)
    assert sorted(image.index for image in [first, *images]) == [0, 1, 2]
    assert home not in fleet.homes()["adapter-1"]


def test_every_client_finds_the_same_server(fleet):
    homes = []
    for connect in (personae.Client, personae.Client, driven_client):
        with connect(inference=fleet.address, patience=HASTY, adapter_affinity=True) as client:
            generate_with_each(client, ADAPTERS[:10])
        homes.append(fleet.homes())
    assert homes[0] == homes[1] == homes[2]


def test_the_pages_of_a_listing_come_from_one_server(client, fleet):
    assert len(list(client.served_adapters())) == 2
    assert sorted(len(server.requests["ListServedAdapters"]) for server in fleet.servers) == [0, 0, 0, 2]


def test_images_without_an_adapter_come_from_any_server(client, fleet):
    for _ in range(40):
        assert len(list(client.generate("a"))) == 1
    assert all(server.requests["Generate"] for server in fleet.servers)


def test_without_being_asked_to_a_client_keeps_to_one_server(connect, fleet):
    with connect(inference=fleet.address, patience=HASTY) as client:
        generate_with_each(client, ADAPTERS[:10])
    assert set.union(*fleet.homes().values()) in ({0}, {1}, {2}, {3})


def test_a_name_that_no_header_can_hold_is_left_for_the_server_to_refuse(client):
    assert len(list(client.generate("a", adapter="mic\N{LATIN SMALL LETTER A WITH DIAERESIS}h"))) == 1
    assert routing.metadata("a\nb") == ()
