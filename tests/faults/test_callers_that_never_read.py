"""Callers that open a stream, stay connected and never read: what they hold is bounded, in memory and in time."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

import personae
from personae.v1 import inference_pb2 as pb
from personae.v1.inference_pb2_grpc import InferenceServiceStub
from tests.faults.footprint import Footprint, assert_no_larger, footprint
from tests.faults.modelled import ANSWER_WITHIN_S, modelled_service
from tests.real_store import RealStore
from tests.service_process import ServiceProcess

pytestmark = [pytest.mark.faults, pytest.mark.slow]

CALLERS, IMAGES = 4, 48
# Noise cannot be compressed: 786 kB a file, of which a connection holds seven or so.
PIXELS = 512
IMAGES_KB = CALLERS * IMAGES * PIXELS * PIXELS * 3 // 1000
# An unread stream is ended after a minute; half as much again for a busy machine.
ENDED_WITHIN_S = 90.0


@pytest.fixture
def service(real_store: RealStore, tmp_path: Path) -> Iterator[ServiceProcess]:
    with modelled_service(real_store, tmp_path, MODELLED_PIXELS=str(PIXELS), MODELLED_STEP_S="0.001") as service:
        yield service


def _unread(service: ServiceProcess) -> tuple[Footprint, float]:
    """Have callers that read one message and no more; the most that was held, and how long until all was free."""
    most, begun_s = footprint(service.process.pid), time.monotonic()
    with ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(service.address)) for _ in range(CALLERS)]
        prompts = [pb.GenerateRequest.Prompt(text="a red hat", seeds=range(IMAGES))]
        calls = [
            InferenceServiceStub(channel).Generate(pb.GenerateRequest(prompts=prompts, steps=1)) for channel in channels
        ]
        for call in calls:
            next(call)
        client = stack.enter_context(personae.Client(inference=service.address))
        stub = InferenceServiceStub(stack.enter_context(grpc.insecure_channel(service.address)))
        while stub.GetServingInfo(pb.GetServingInfoRequest(), timeout=ANSWER_WITHIN_S).requests_open:
            # Others are served meanwhile.
            asked_s = time.monotonic()
            assert len(list(client.generate("a blue hat", seeds=[1], steps=1))) == 1
            assert time.monotonic() - asked_s < 10
            most = max(most, footprint(service.process.pid), key=lambda seen: seen.rss_kb)
            assert time.monotonic() - begun_s < ENDED_WITHIN_S
            time.sleep(0.5)
        took_s = time.monotonic() - begun_s
        for call in calls:
            with pytest.raises(grpc.RpcError) as caught:
                list(call)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, caught.value
    return most, took_s


def test_who_never_reads_holds_no_more_than_his_images_and_for_a_minute(service: ServiceProcess) -> None:
    with personae.Client(inference=service.address) as client:
        list(client.generate("a blue hat", seeds=range(8), steps=1))
    idle = footprint(service.process.pid)
    most, took_s = _unread(service)
    assert took_s > 30, "they were never blocked"
    assert most.rss_kb - idle.rss_kb < 2 * IMAGES_KB
    # What the allocator keeps after the first is used again by the second.
    kept = assert_no_larger(
        Footprint(idle.children, idle.threads + 40, idle.descriptors + 8, most.rss_kb), service.process.pid
    )
    again, _ = _unread(service)
    print(idle, most, kept, again)
    assert again.rss_kb - idle.rss_kb < 2 * IMAGES_KB
    # A tenth is what two equal rounds were seen to differ by.
    allowed = Footprint(kept.children, kept.threads + 4, kept.descriptors + 4, kept.rss_kb)
    assert_no_larger(allowed, service.process.pid, memory=1.1)


def test_a_client_that_pauses_between_images_for_longer_gets_them_all(service: ServiceProcess) -> None:
    seeds = list(range(IMAGES))
    with personae.Client(inference=service.address) as client:
        images = client.generate("a red hat", seeds=seeds, steps=1)
        first = next(images)
        stub_channel = grpc.insecure_channel(service.address)
        with stub_channel:
            stub = InferenceServiceStub(stub_channel)
            give_up_s = time.monotonic() + ENDED_WITHIN_S
            while stub.GetServingInfo(pb.GetServingInfoRequest(), timeout=ANSWER_WITHIN_S).requests_open:
                assert time.monotonic() < give_up_s
                time.sleep(0.5)
        assert sorted([first.seed, *(image.seed for image in images)]) == seeds
