"""Any message at all, to every rpc of InferenceService: it is answered, or refused with a reason, never a defect."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from personae.v1 import inference_pb2 as pb
from service_kit import schema
from service_kit.names import AdapterVersionName, DatasetName
from tests.bucket_adapters import publish
from tests.fuzzed_service import FuzzedService, requests_of, rpcs
from tests.unit.inference.fake_serving import ask, fake_serving
from tests.unit.inference.picture_bytes import encoded, left_half, picture

SERVICE = pb.DESCRIPTOR.services_by_name["InferenceService"]
HERO = AdapterVersionName("default", "hero", 1)
TEXTS = [
    "a red hat",
    "default",
    "toon-64",
    "projects/default",
    str(HERO),
    str(HERO.adapter_name),
    "projects/default/adapters/none",
    f"projects/default/datasets/cat/images/{'0' * 64}",
    "0" * 64,
]


GOOD = {
    "Generate": [
        ask(1),
        ask(1, adapters=[pb.AdapterWeight(adapter=str(HERO))], preview_every=1, format=pb.IMAGE_FORMAT_JPEG),
        ask(1, start=pb.StartPicture(content=encoded(picture()), mask=encoded(left_half()))),
    ],
    "PreloadAdapter": [pb.PreloadAdapterRequest(adapter=str(HERO))],
    "LookUpImage": [pb.LookUpImageRequest(digest="0" * 64)],
}


class OpenGate(asyncio.Event):
    """Nothing closes it: there is nobody here who would open it again."""

    def clear(self) -> None:
        return


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuzzedService]:
    folder: Path = tmp_path_factory.mktemp("adapters")

    @asynccontextmanager
    async def serving() -> AsyncIterator[grpc.aio.Channel]:
        async with fake_serving(folder) as fake:
            fake.engine.gate = OpenGate()
            fake.engine.gate.set()
            publish(fake.store, HERO)
            fake.store.put(schema.dataset_image(DatasetName("default", "cat"), "0" * 64), encoded(picture()))
            yield fake.channel

    made = FuzzedService(serving)
    yield made
    made.close()


@pytest.mark.parametrize("rpc", rpcs(SERVICE))
@settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)
@given(data=st.data())
def test_every_rpc_answers_or_refuses_whatever_comes(service: FuzzedService, rpc: str, data: st.DataObject) -> None:
    method = SERVICE.methods_by_name[rpc]
    service.answer(method, data.draw(requests_of(method, TEXTS, GOOD)))


def test_afterwards_a_good_request_succeeds(service: FuzzedService) -> None:
    assert service.answer(SERVICE.methods_by_name["Generate"], [ask(1).SerializeToString()]) == grpc.StatusCode.OK
