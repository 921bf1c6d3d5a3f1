"""ExportAdapter and ReadArtifact together, on a real service and a real object store."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import safetensors.numpy

from personae.v1 import adapter_pb2
from personae.v1 import trainer_pb2 as pb
from service_kit.names import AdapterName
from tests import bucket_adapters
from tests.integration.trainer_calls import CALL_S, TrainerCalls, unique
from tests.real_store import RealStore


def _read(trainer: TrainerCalls, adapter: str, artifact_id: str) -> bytes:
    request = pb.ReadArtifactRequest(adapter=adapter, artifact_id=artifact_id)
    return b"".join(message.chunk for message in trainer.stub.ReadArtifact(request, timeout=CALL_S))


def test_four_exports_at_once_answer_one_file_that_can_be_read(trainer: TrainerCalls, real_store: RealStore) -> None:
    adapter = AdapterName("default", unique("adapter"))
    tensors = {
        "unet.conv_in.lora_A.weight": np.ones((2, 4, 3, 3), np.float32),
        "unet.conv_in.lora_B.weight": np.ones((64, 2, 1, 1), np.float32),
    }
    bucket_adapters.publish(real_store.store, adapter.version(1), safetensors.numpy.save(tensors))
    request = pb.ExportAdapterRequest(name=str(adapter), format=adapter_pb2.ADAPTER_FORMAT_KOHYA)
    with ThreadPoolExecutor(4) as callers:
        answers = list(callers.map(lambda _: trainer.stub.ExportAdapter(request, timeout=CALL_S), range(4)))
    first = answers[0]
    assert all(answer == first for answer in answers)
    assert first.adapter == str(adapter.version(1))
    body = _read(trainer, first.adapter, first.artifact.artifact_id)
    assert hashlib.sha256(body).hexdigest() == first.artifact.digest
    assert np.array_equal(
        safetensors.numpy.load(body)["lora_unet_conv_in.lora_up.weight"], tensors["unet.conv_in.lora_B.weight"]
    )
    card = _read(trainer, first.adapter, first.model_card.artifact_id)
    assert hashlib.sha256(card).hexdigest() == first.model_card.digest
    assert card.startswith(b"---")
