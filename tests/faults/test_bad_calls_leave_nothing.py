"""200 repetitions of bad calls to a real process: it serves on, and holds no more than before.

Each answer's status is looked at, so that what is repeated is what its name says.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from personae.v1 import inference_pb2 as inference_pb
from personae.v1 import trainer_pb2 as trainer_pb
from personae.v1.inference_pb2_grpc import InferenceServiceStub
from personae.v1.trainer_pb2_grpc import TrainerServiceStub
from service_kit.names import AdapterVersionName
from tests.faults.footprint import assert_no_larger, footprint
from tests.faults.modelled import ANSWER_WITHIN_S, SERVING, health, modelled_service, publish_for_the_model
from tests.faults.modelled_service import BROKEN_FILE
from tests.integration.test_trainer_bad_input import CASES
from tests.real_store import RealStore
from tests.service_process import ServiceProcess, running_service, service_environment

pytestmark = [pytest.mark.faults, pytest.mark.slow]

WARM_UP, WARM_UP_CALLERS, REPETITIONS = 20, 8, 200
ADAPTERS = "projects/default/adapters"
Code = grpc.StatusCode
Calls = Mapping[str, tuple[Callable[[], Any], grpc.StatusCode]]


@pytest.fixture(scope="module")
def inference(real_store: RealStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    publish_for_the_model(real_store, AdapterVersionName("default", "broken", 1), BROKEN_FILE)
    # Slow enough that a call can be left while it is under way.
    with modelled_service(real_store, tmp_path_factory.mktemp("inference"), MODELLED_STEP_S="0.002") as service:
        yield service


@pytest.fixture(scope="module")
def trainer(real_store: RealStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    environment = service_environment(real_store, PERSONAE_TRAINER_WORKERS="0")
    with running_service("trainer_service", environment, tmp_path_factory.mktemp("trainer") / "log") as service:
        yield service


def _generate(adapter: str = "", text: str = "a red hat", **fields: Any) -> inference_pb.GenerateRequest:
    prompts = [inference_pb.GenerateRequest.Prompt(text=text, seeds=[1])]
    adapters = [inference_pb.AdapterWeight(adapter=adapter)] if adapter else []
    return inference_pb.GenerateRequest(**{"prompts": prompts, "adapters": adapters, "steps": 2} | fields)


def _left(call: Any) -> None:
    """Leave a stream after its first message."""
    next(call)
    call.cancel()
    list(call)


def _bad_calls_of_inference(channel: grpc.Channel) -> Calls:
    stub = InferenceServiceStub(channel)

    def generate(request: inference_pb.GenerateRequest, timeout: float = ANSWER_WITHIN_S, **options: Any) -> Any:
        return lambda: list(stub.Generate(request, timeout=timeout, **options))

    unary = channel.unary_unary
    return {
        "fields out of range": (generate(_generate(width=513, height=-8, guidance_scale=99)), Code.INVALID_ARGUMENT),
        "a long prompt": (generate(_generate(text="hat " * 20_000)), Code.INVALID_ARGUMENT),
        "a base model that is a path": (generate(_generate(base_model="/etc")), Code.INVALID_ARGUMENT),
        "no such adapter": (generate(_generate(f"{ADAPTERS}/none")), Code.NOT_FOUND),
        "a broken adapter": (generate(_generate(f"{ADAPTERS}/broken")), Code.FAILED_PRECONDITION),
        "an id that climbs": (generate(_generate(f"{ADAPTERS}/../x")), Code.INVALID_ARGUMENT),
        "a deadline of 1 ms": (generate(_generate(steps=100), timeout=0.001), Code.DEADLINE_EXCEEDED),
        "a deadline in mid-work": (generate(_generate(steps=100), timeout=0.05), Code.DEADLINE_EXCEEDED),
        "a caller who leaves": (lambda: _left(stub.Generate(_generate(steps=100))), Code.CANCELLED),
        "a message over the limit": (generate(_generate(text="x" * 5 * 2**20)), Code.RESOURCE_EXHAUSTED),
        "metadata over the limit": (generate(_generate(), metadata=[("x", "y" * 20_000)]), Code.RESOURCE_EXHAUSTED),
        "a malformed digest": (
            lambda: stub.LookUpImage(inference_pb.LookUpImageRequest(digest="x"), timeout=ANSWER_WITHIN_S),
            Code.INVALID_ARGUMENT,
        ),
        "an unknown method": (
            lambda: unary("/personae.v1.InferenceService/Guess")(b"", timeout=ANSWER_WITHIN_S),
            Code.UNIMPLEMENTED,
        ),
    }


def _bad_calls_of_the_trainer(channel: grpc.Channel) -> Calls:
    stub = TrainerServiceStub(channel)

    def call(rpc: str, request: Any) -> Callable[[], Any]:
        return lambda: getattr(stub, rpc)(request, timeout=ANSWER_WITHIN_S)

    watch = trainer_pb.WatchTrainingRequest(name="projects/default/trainings/none")
    read = trainer_pb.ReadArtifactRequest(adapter="projects/default/adapters/none")
    upload = trainer_pb.UploadImagesRequest(chunk=b"x")
    return {name: (call(rpc, request), code) for name, (rpc, request, code, _, _) in CASES.items()} | {
        "a watch of nothing": (lambda: list(stub.WatchTraining(watch, timeout=ANSWER_WITHIN_S)), Code.NOT_FOUND),
        "a file of nothing": (lambda: list(stub.ReadArtifact(read, timeout=ANSWER_WITHIN_S)), Code.NOT_FOUND),
        "an upload without a header": (
            lambda: stub.UploadImages(iter([upload]), timeout=ANSWER_WITHIN_S),
            Code.INVALID_ARGUMENT,
        ),
    }


def _repeat(calls: Calls, times: int) -> None:
    for _ in range(times):
        for name, (call, code) in calls.items():
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() is code, f"{name}: {caught.value}"


def _assert_nothing_is_left(service: ServiceProcess, calls: Calls, good: Callable[[], object]) -> None:
    good()
    # Side by side, so that the pools, which are bounded and grow when nobody in them is idle, have grown before.
    with ThreadPoolExecutor(WARM_UP_CALLERS) as callers:
        for warm in [callers.submit(_repeat, calls, WARM_UP) for _ in range(WARM_UP_CALLERS)]:
            warm.result()
    before = footprint(service.process.pid)
    _repeat(calls, REPETITIONS)
    good()
    print(before, assert_no_larger(before, service.process.pid))
    assert health(service) == SERVING


def test_bad_calls_leave_the_inference_service_as_it_was(inference: ServiceProcess) -> None:
    with grpc.insecure_channel(inference.address) as channel:
        stub = InferenceServiceStub(channel)

        def good() -> None:
            *_, last = stub.Generate(_generate(), timeout=ANSWER_WITHIN_S)
            assert last.HasField("done")

        _assert_nothing_is_left(inference, _bad_calls_of_inference(channel), good)
        info = stub.GetServingInfo(inference_pb.GetServingInfoRequest(), timeout=ANSWER_WITHIN_S)
        assert (info.cost_waiting, info.requests_open) == (0, 0)


def test_bad_calls_leave_the_trainer_as_it_was(trainer: ServiceProcess) -> None:
    with grpc.insecure_channel(trainer.address) as channel:
        stub = TrainerServiceStub(channel)

        def good() -> None:
            stub.ListDatasets(trainer_pb.ListDatasetsRequest(), timeout=ANSWER_WITHIN_S)

        _assert_nothing_is_left(trainer, _bad_calls_of_the_trainer(channel), good)


def test_a_leak_of_each_kind_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.footprint._SETTLES_WITHIN_S", 0.5)
    process, over = os.getpid(), threading.Event()
    with ExitStack() as held:
        before = footprint(process)
        held.enter_context(Path("/dev/null").open())
        with pytest.raises(AssertionError, match="before"):
            assert_no_larger(before, process)
        before = footprint(process)
        leaked = threading.Thread(target=over.wait)
        held.callback(leaked.join)
        held.callback(over.set)
        leaked.start()
        with pytest.raises(AssertionError, match="before"):
            assert_no_larger(before, process)
        before = footprint(process)
        leaked_bytes = bytearray(b"x") * (before.rss_kb * 1024 // 5)
        with pytest.raises(AssertionError, match="before"):
            assert_no_larger(before, process)
        assert leaked_bytes
