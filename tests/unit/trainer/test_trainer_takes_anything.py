"""Any message at all, to every rpc of TrainerService: it is answered, or refused with a reason, never a defect."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import grpc
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from base_models.adapter_export import StoredTensor, write_safetensors
from personae.v1 import trainer_pb2 as pb
from personae.v1 import training_pb2
from personae.v1.trainer_pb2_grpc import add_TrainerServiceServicer_to_server
from service_kit.error_status import ErrorInterceptor
from service_kit.lingering import LingerInterceptor
from service_kit.names import AdapterVersionName
from tests.bucket_adapters import publish
from tests.fuzzed_service import FuzzedService, requests_of, rpcs
from tests.unit.trainer.served_trainer import trainer_servicer
from tests.unit.trainer.trainer_fakes import Trainer, bundled, request

SERVICE = pb.DESCRIPTOR.services_by_name["TrainerService"]
PROJECT = "projects/default"
TEXTS = [
    "cat",
    "hero",
    "toon-64",
    "adapter",
    PROJECT,
    f"{PROJECT}/datasets/cat",
    f"{PROJECT}/datasets/none",
    f"{PROJECT}/trainings/none",
    f"{PROJECT}/adapters/hero",
    f"{PROJECT}/adapters/hero/versions/1",
    f"{PROJECT}/adapters/hero/versions/9",
    "b3c1b2a0-5b1e-4a52-9f3f-0b8d1f0e7a11",
]


DATASET, HERO = f"{PROJECT}/datasets/cat", f"{PROJECT}/adapters/hero/versions/1"
LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
ADAPTER = write_safetensors({f"{LAYER}.lora_{part}.weight": StoredTensor("F32", (1, 1), bytes(4)) for part in "AB"}, {})
PICTURE = bundled(1)[0].body
GOOD = {
    "UploadImages": [
        pb.UploadImagesRequest(header=pb.UploadImagesRequest.Header(dataset=DATASET)),
        pb.UploadImagesRequest(image=pb.UploadImagesRequest.Image(filename="a.png", size_bytes=len(PICTURE))),
        pb.UploadImagesRequest(chunk=PICTURE),
    ],
    "GetDataset": [pb.GetDatasetRequest(name=DATASET)],
    "CreateTraining": [
        pb.CreateTrainingRequest(training=training_pb2.Training(dataset=DATASET, adapter_id="hero"), new_version=True),
        pb.CreateTrainingRequest(training=training_pb2.Training(dataset=DATASET), validate_only=True),
    ],
    "GetAdapter": [pb.GetAdapterRequest(name=HERO)],
    "ExportAdapter": [pb.ExportAdapterRequest(name=HERO)],
    "ReadArtifact": [pb.ReadArtifactRequest(adapter=HERO)],
}


@asynccontextmanager
async def _serving() -> AsyncIterator[grpc.aio.Channel]:
    trainer = Trainer()
    trainer.dataset("cat", 4)
    TEXTS.append(str(trainer.trainings.create(request()).record.name))
    publish(trainer.store, AdapterVersionName("default", "hero", 1), ADAPTER)
    servicer = trainer_servicer(trainer)
    server = grpc.aio.server(interceptors=[ErrorInterceptor(), LingerInterceptor()])
    add_TrainerServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


@pytest.fixture(scope="module")
def service() -> Iterator[FuzzedService]:
    made = FuzzedService(_serving)
    yield made
    made.close()


@pytest.mark.parametrize("rpc", rpcs(SERVICE))
@settings(
    max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)
@given(data=st.data())
def test_every_rpc_answers_or_refuses_whatever_comes(service: FuzzedService, rpc: str, data: st.DataObject) -> None:
    method = SERVICE.methods_by_name[rpc]
    service.answer(method, data.draw(requests_of(method, TEXTS, GOOD)))


def test_afterwards_good_requests_succeed(service: FuzzedService) -> None:
    listed = pb.ListDatasetsRequest(parent=PROJECT).SerializeToString()
    assert service.answer(SERVICE.methods_by_name["ListDatasets"], [listed]) == grpc.StatusCode.OK
    read = pb.GetDatasetRequest(name=f"{PROJECT}/datasets/cat").SerializeToString()
    # DeleteDataset may have been among what came.
    assert service.answer(SERVICE.methods_by_name["GetDataset"], [read]) in (
        grpc.StatusCode.OK,
        grpc.StatusCode.NOT_FOUND,
    )
