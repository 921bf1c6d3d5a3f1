"""Any message at all, to every rpc of InferenceService: it is answered, or refused with a reason, never a defect."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_service.ledger import Ledger, Making
from personae.v1 import inference_pb2 as pb
from service_kit import schema
from service_kit.names import AdapterVersionName, DatasetName, ProjectName
from tests.bucket_adapters import publish
from tests.fuzzed_service import FuzzedService, examples, rpcs
from tests.unit.inference.fake_serving import ask, fake_serving
from tests.unit.inference.picture_bytes import encoded, left_half, picture

SERVICE = pb.DESCRIPTOR.services_by_name["InferenceService"]
HERO, CAT = AdapterVersionName("default", "hero", 1), DatasetName("default", "cat")
PICTURE = encoded(picture())
DIGEST = hashlib.sha256(PICTURE).hexdigest()
TEXTS = [
    "a red hat",
    "default",
    "toon-64",
    "projects/default",
    str(HERO),
    str(HERO.adapter_name),
    "projects/default/adapters/none",
    str(CAT),
    f"{CAT}/images/{DIGEST}",
    DIGEST,
]


GOOD = {
    "Generate": [
        ask(1),
        ask(1, adapters=[pb.AdapterWeight(adapter=str(HERO))], preview_every=1, format=pb.IMAGE_FORMAT_JPEG),
        ask(1, start=pb.StartPicture(content=PICTURE, mask=encoded(left_half()))),
        ask(1, start=pb.StartPicture(image=f"{CAT}/images/{DIGEST}")),
    ],
    "PreloadAdapter": [pb.PreloadAdapterRequest(adapter=str(HERO))],
    "LookUpImage": [pb.LookUpImageRequest(digest=DIGEST)],
    "ListServedAdapters": [pb.ListServedAdaptersRequest(), pb.ListServedAdaptersRequest(page_size=1)],
    "GetServingInfo": [pb.GetServingInfoRequest()],
    "ListImages": [pb.ListImagesRequest(parent=str(HERO)), pb.ListImagesRequest(parent=str(CAT), page_size=1)],
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
            making = Making(generation="g", adapters=(), base_model="toon-64", base_model_digest="b" * 64)
            Ledger(fake.store, lambda: datetime.now(UTC)).note(ProjectName("default"), DIGEST, making)
            fake.store.put(schema.dataset_image(CAT, DIGEST), PICTURE)
            yield fake.channel

    made = FuzzedService(SERVICE, serving, TEXTS, GOOD)
    yield made
    made.close()


@pytest.mark.parametrize("rpc", rpcs(SERVICE))
def test_a_good_call_of_every_rpc_succeeds(service: FuzzedService, rpc: str) -> None:
    assert set(service.answers_to_good(rpc)) == {grpc.StatusCode.OK}


@pytest.mark.parametrize("rpc", rpcs(SERVICE))
@examples(60)
@given(data=st.data())
def test_every_rpc_answers_or_refuses_whatever_comes(service: FuzzedService, rpc: str, data: st.DataObject) -> None:
    service.answer(rpc, data.draw(service.calls(rpc)))


@pytest.mark.parametrize("rpc", rpcs(SERVICE))
def test_afterwards_a_good_call_of_every_rpc_still_succeeds(service: FuzzedService, rpc: str) -> None:
    assert set(service.answers_to_good(rpc)) == {grpc.StatusCode.OK}
