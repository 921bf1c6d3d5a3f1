"""The inference service while its store is away, slow, forbids or lies, and while its cache is broken."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import personae
from personae.v1 import inference_pb2 as pb
from personae.v1.inference_pb2_grpc import InferenceServiceStub
from service_kit import schema
from service_kit.names import AdapterVersionName
from tests.faults.lying_store import Lie, LyingStore, Rule, lying_store
from tests.faults.modelled import ANSWER_WITHIN_S, SERVING, health, modelled_service, publish_for_the_model
from tests.integration.trainer_calls import unique
from tests.real_store import RealStore
from tests.service_process import ServiceProcess

pytestmark = [pytest.mark.faults, pytest.mark.slow]

Code = grpc.StatusCode


@dataclass(frozen=True)
class Serving:
    """The service behind a proxy, and its cache's folder."""

    store: RealStore
    lying: LyingStore
    service: ServiceProcess
    cache: Path

    def adapter(self, body: bytes = b"an adapter") -> tuple[AdapterVersionName, str]:
        """A new adapter and its digest; no two have the same file."""
        name = AdapterVersionName("default", unique("adapter"), 1)
        return name, publish_for_the_model(self.store, name, body + str(name).encode())

    def images(self, name: AdapterVersionName | None = None, count: int = 1) -> list[personae.Image]:
        """Images of the seeds 0, 1, ..., asked for with all patience."""
        with personae.Client(inference=self.service.address) as client:
            adapters = [] if name is None else [str(name)]
            images = client.generate("a red hat", adapters=adapters, seeds=list(range(count)), steps=2)
            # They come in any order.
            return sorted(images, key=lambda image: image.index)

    def refusal(self, name: AdapterVersionName | None = None) -> tuple[Code, str, bool, int]:
        """Status and reason of a call that fails, whether it says when to come back, and the images before it."""
        prompts = [pb.GenerateRequest.Prompt(text="a red hat", seeds=[0, 1])]
        adapters = [] if name is None else [pb.AdapterWeight(adapter=str(name))]
        request, images = pb.GenerateRequest(prompts=prompts, adapters=adapters, steps=2), 0
        with grpc.insecure_channel(self.service.address) as channel:
            call = InferenceServiceStub(channel).Generate(request, timeout=ANSWER_WITHIN_S)
            try:
                for message in call:
                    images += message.HasField("image")
            except grpc.RpcError as error:
                status, info = rpc_status.from_call(error), error_details_pb2.ErrorInfo()
                assert status is not None
                assert status.details[0].Unpack(info)
                told = any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details)
                return error.code(), info.reason, told, images
        raise AssertionError(f"answered with {images} images")


@pytest.fixture(scope="module")
def serving(real_store: RealStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("inference")
    with (
        lying_store(real_store.endpoint) as lying,
        # Nothing stays in memory, so that every request reads the disk.
        modelled_service(
            replace(real_store, endpoint=lying.endpoint), folder, PERSONAE_INFERENCE_HOST_CACHE_BYTES="0"
        ) as service,
    ):
        yield Serving(real_store, lying, service, folder / "inference-cache")


@pytest.fixture(autouse=True)
def serves_on(serving: Serving) -> Iterator[None]:
    """After each fault the service is SERVING, and a good request succeeds."""
    yield
    assert health(serving.service) == SERVING
    assert len(serving.images(serving.adapter()[0])) == 1


def _about(lie: Lie, part: str, method: str = "GET") -> Rule:
    return lambda asked, path: lie if asked == method and part in path else ""


def test_a_store_that_is_away_is_unavailable_and_serves_again_when_it_is_back(serving: Serving) -> None:
    name, _ = serving.adapter()
    with serving.lying.lies(lambda method, path: "refuse"):
        assert serving.refusal(name) == (Code.UNAVAILABLE, "STORE_UNAVAILABLE", True, 0)
        # Not even without an adapter: no image leaves before the ledger knows it.
        assert serving.refusal() == (Code.UNAVAILABLE, "STORE_UNAVAILABLE", True, 0)
    assert len(serving.images(name)) == 1


def test_an_adapter_that_is_near_is_served_while_the_file_of_another_cannot_be_fetched(serving: Serving) -> None:
    near, (far, digest) = serving.adapter()[0], serving.adapter()
    before = serving.images(near)
    with serving.lying.lies(_about("refuse", digest)):
        assert serving.refusal(far) == (Code.UNAVAILABLE, "STORE_UNAVAILABLE", True, 0)
        assert serving.images(near) == before
    assert len(serving.images(far)) == 1


def test_a_store_that_is_slow_for_one_adapter_holds_up_no_other(serving: Serving) -> None:
    far, digest = serving.adapter()
    with serving.lying.lies(_about("stall", digest)), grpc.insecure_channel(serving.service.address) as channel:
        prompts = [pb.GenerateRequest.Prompt(text="a red hat", seeds=[0])]
        request = pb.GenerateRequest(prompts=prompts, adapters=[pb.AdapterWeight(adapter=str(far))], steps=2)
        waiting = InferenceServiceStub(channel).Generate(request, timeout=ANSWER_WITHIN_S)
        assert serving.lying.lied.wait(ANSWER_WITHIN_S)
        assert len(serving.images(serving.adapter()[0])) == 1
        waiting.cancel()
    assert len(serving.images(far)) == 1


def test_a_store_that_forbids_is_the_operators_to_mend(serving: Serving) -> None:
    far, digest = serving.adapter()
    with serving.lying.lies(_about("forbid", digest)):
        assert serving.refusal(far)[:2] == (Code.INTERNAL, "STORE_FORBIDDEN")
    assert len(serving.images(far)) == 1


def test_a_body_that_ends_too_soon_is_fetched_again_and_never_used(serving: Serving) -> None:
    far, digest = serving.adapter()
    with serving.lying.lies(_about("cut short", digest)):
        assert serving.refusal(far)[:3] == (Code.UNAVAILABLE, "STORE_UNAVAILABLE", True)
    assert len(serving.images(far)) == 1


def test_a_flipped_byte_is_data_loss_and_not_fetched_each_time(serving: Serving) -> None:
    far, digest = serving.adapter()
    with serving.lying.lies(_about("flip", digest)):
        assert serving.refusal(far)[:2] == (Code.DATA_LOSS, "DATA_LOST")
        asked = len([path for _, path in serving.lying.asked if digest in path])
        for _ in range(5):
            assert serving.refusal(far)[0] is Code.DATA_LOSS
        assert len([path for _, path in serving.lying.asked if digest in path]) == asked
    assert not (serving.cache / digest).exists()


def test_a_manifest_that_cannot_be_read_is_data_loss(serving: Serving) -> None:
    name, _ = serving.adapter()
    serving.store.store.put(schema.adapter_manifest(name), b"{")
    assert serving.refusal(name)[:2] == (Code.DATA_LOSS, "DATA_LOST")


def test_no_image_leaves_before_the_ledger_knows_it_and_a_repeat_gives_the_same(serving: Serving) -> None:
    name, _ = serving.adapter()
    with serving.lying.lies(_about("refuse", "/images/", "PUT")):
        assert serving.refusal(name) == (Code.UNAVAILABLE, "STORE_UNAVAILABLE", True, 0)
    with personae.Client(inference=serving.service.address) as client:
        images = serving.images(name, count=2)
        assert serving.images(name, count=2) == images
        for image in images:
            assert client.look_up_image(image).adapters[0].name == str(name)


@pytest.mark.parametrize("break_it", ["delete", "damage", "read-only"])
def test_a_cache_that_breaks_at_run_time_costs_time_and_no_image(serving: Serving, break_it: str) -> None:
    (name, digest), (other, _) = serving.adapter(), serving.adapter()
    before = serving.images(name)
    give_up_s = time.monotonic() + ANSWER_WITHIN_S
    while not (serving.cache / digest).exists():
        assert time.monotonic() < give_up_s
        time.sleep(0.05)
    try:
        if break_it == "delete":
            shutil.rmtree(serving.cache)
        elif break_it == "damage":
            (serving.cache / digest).write_bytes(b"something else")
        else:
            # A file in the folder's place: the tests may run as root, whom no mode stops.
            shutil.rmtree(serving.cache)
            serving.cache.write_bytes(b"")
        assert serving.images(name) == before
        assert len(serving.images(other)) == 1
    finally:
        if serving.cache.is_file():
            serving.cache.unlink()
