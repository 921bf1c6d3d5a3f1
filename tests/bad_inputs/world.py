"""Both services as real processes on a real store, as a careful operator runs them, and what lies in their bucket.

Two projects with a token each; consent is required; a project may have two trainings at a time.
"""

import hashlib
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from base_models.catalog import read_allow_list
from personae.v1 import dataset_pb2, inference_pb2_grpc, trainer_pb2_grpc
from personae.v1 import inference_pb2 as inference
from personae.v1 import trainer_pb2 as pb
from personae.v1.training_pb2 import Training, TrainingConfig
from service_kit import schema
from service_kit.names import AdapterVersionName
from tests.bad_inputs.hostile_adapters import HOSTILE_ADAPTERS, adapter_with_hostile_metadata, good_adapter
from tests.bucket_adapters import publish, reserve
from tests.integration.trainer_calls import UNJUDGED, UNJUDGED_CONFIG, bundled_files, upload_messages
from tests.real_store import RealStore
from tests.service_process import ServiceProcess, running_service, service_environment

CALL_S = 60.0
OURS, THEIRS, VIEWER = "token-of-default", "token-of-other", "token-of-a-viewer"
CONSENT = dataset_pb2.Consent(given_by="who drew them", purpose="tests")
PROJECT_TRAININGS = 2


@dataclass
class World:
    """The services, and calls to them with our project's token."""

    store: RealStore
    processes: dict[str, ServiceProcess]
    channels: dict[str, grpc.Channel]

    def trainer(self, rpc: str, request: Any, token: str = OURS, timeout_s: float = CALL_S) -> Any:
        """A call to TrainerService; streams are returned open."""
        return self._call(trainer_pb2_grpc.TrainerServiceStub(self.channels["trainer"]), rpc, request, token, timeout_s)

    def inference(self, rpc: str, request: Any, token: str = OURS, timeout_s: float = CALL_S) -> Any:
        """A call to InferenceService; streams are returned open."""
        stub = inference_pb2_grpc.InferenceServiceStub(self.channels["inference"])
        return self._call(stub, rpc, request, token, timeout_s)

    def _call(self, stub: Any, rpc: str, request: Any, token: str, timeout_s: float) -> Any:
        metadata = [("authorization", f"Bearer {token}")] if token else []
        return getattr(stub, rpc)(request, timeout=timeout_s, metadata=metadata)

    def goes_on(self) -> None:
        """Both services are SERVING and carry out a good request."""
        for name, service in (("trainer", "TrainerService"), ("inference", "InferenceService")):
            with grpc.insecure_channel(self.processes[name].health_address) as channel:
                request = health_pb2.HealthCheckRequest(service=f"personae.v1.{service}")
                answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=CALL_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        self.trainer("GetDataset", pb.GetDatasetRequest(name=self.dataset))
        # As little as an image can be: this is asked after every bad input.
        smallest = good_generation(steps=1, guidance_scale=1.0, format=inference.IMAGE_FORMAT_JPEG)
        assert [*self.inference("Generate", smallest)][-1].HasField("done")

    def new_dataset(self, count: int, consent: dataset_pb2.Consent | None = CONSENT, token: str = OURS) -> str:
        """A dataset of bundled pictures."""
        parent = "projects/other" if token == THEIRS else ""
        request = pb.CreateDatasetRequest(parent=parent, consent=consent)
        name = self.trainer("CreateDataset", request, token).dataset.name
        self.trainer("UploadImages", upload_messages(name, bundled_files(count)), token)
        return str(name)

    @cached_property
    def dataset(self) -> str:
        """One that can be trained on, though one of its pictures is broken."""
        name = self.new_dataset(3)
        broken = {"broken.png": next(iter(bundled_files(1).values()))[:500]}
        self.trainer("UploadImages", upload_messages(name, broken))
        return name

    @cached_property
    def dataset_without_consent(self) -> str:
        """One that could be trained on if somebody had agreed."""
        return self.new_dataset(3, None)

    @cached_property
    def empty_dataset(self) -> str:
        """One without pictures."""
        return self.new_dataset(0)

    @cached_property
    def training_request(self) -> pb.CreateTrainingRequest:
        """Of the training that succeeded."""
        return self.request_for("taken", steps=1)

    def request_for(self, adapter_id: str, **config: Any) -> pb.CreateTrainingRequest:
        """For a training that needs no long time."""
        settings = TrainingConfig(**(UNJUDGED_CONFIG | {"sample_every": 0} | config))
        training = Training(dataset=self.dataset, adapter_id=adapter_id, base_model="plain", config=settings)
        return pb.CreateTrainingRequest(training=training, request_id=str(uuid.uuid4()))

    @cached_property
    def training(self) -> str:
        """One that has succeeded."""
        name = self.trainer("CreateTraining", self.training_request).training.name
        *_, last = self.trainer("WatchTraining", pb.WatchTrainingRequest(name=name), timeout_s=5 * CALL_S)
        assert last.event.ended.state == Training.State.STATE_SUCCEEDED, last
        return str(name)

    @cached_property
    def used_request_id(self) -> str:
        """Of the training that has succeeded."""
        return self.training_request.request_id if self.training else ""

    @cached_property
    def adapter_id(self) -> str:
        """Of the adapter that it made."""
        return self.training_request.training.adapter_id if self.training else ""


def good_generation(images: int = 1, **fields: Any) -> inference.GenerateRequest:
    """A request for images of two steps; it can be carried out."""
    prompts = [inference.GenerateRequest.Prompt(text="a red hat", seeds=range(images))]
    return inference.GenerateRequest(**({"prompts": prompts, "steps": 2} | fields))


@contextmanager
def running_world(store: RealStore, folder: Path) -> Iterator[World]:
    """Start both services and put adapters into the bucket, most of them bad."""
    tokens = folder / "tokens.json"
    tokens.write_text(json.dumps({"identities": identities()}))
    settings = {
        "PERSONAE_TOKENS_FILE": str(tokens),
        "PERSONAE_TRAINER_REQUIRE_CONSENT": "true",
        "PERSONAE_TRAINER_PROJECT_TRAININGS": str(PROJECT_TRAININGS),
        "PERSONAE_INFERENCE_REQUESTS": "4",
        "PERSONAE_INFERENCE_CACHE_DIR": str(folder / "cache"),
    }
    environment = service_environment(store, **settings)
    # Its trainings are not judged, which would take most of their time.
    of_trainer = environment | {"PERSONAE_BASE_MODELS": f"toon-64,{UNJUDGED['PERSONAE_BASE_MODELS']}"}
    fill_bucket(store)
    with (
        running_service("trainer_service", of_trainer, folder / "trainer.log") as trainer,
        running_service("inference_service", environment, folder / "inference.log") as inference_process,
        grpc.insecure_channel(trainer.address) as to_trainer,
        grpc.insecure_channel(inference_process.address) as to_inference,
    ):
        processes = {"trainer": trainer, "inference": inference_process}
        yield World(store, processes, {"trainer": to_trainer, "inference": to_inference})


def identities() -> list[dict[str, Any]]:
    """Who may call, as the operator writes it down."""
    return [
        {
            "name": f"caller-{index}",
            "roles": roles,
            "projects": [project],
            "tokens_sha256": [hashlib.sha256(token.encode()).hexdigest()],
        }
        for index, (token, project, roles) in enumerate(
            [
                (OURS, "default", ["trainer", "generator"]),
                (THEIRS, "other", ["trainer", "generator"]),
                (VIEWER, "default", ["viewer"]),
            ]
        )
    ]


def fill_bucket(store: RealStore) -> None:
    """Adapters as workers leave them, and as somebody with access to the bucket might."""
    bucket, digest = store.store, read_allow_list(["toon-64"])["toon-64"].digest()

    def version(adapter: str, project: str = "default") -> AdapterVersionName:
        return AdapterVersionName(project, adapter, 1)

    reserve(bucket, version("unborn"))
    publish(bucket, version("good"), good_adapter(), base_model_digest=digest)
    publish(bucket, version("loud"), adapter_with_hostile_metadata(), base_model_digest=digest)
    publish(bucket, version("theirs", "other"), good_adapter(), base_model_digest=digest)
    publish(bucket, version("foreign"), b"of another", "other-base")
    for index, make in enumerate(HOSTILE_ADAPTERS.values()):
        publish(bucket, version(f"hostile-{index}"), make(), base_model_digest=digest)
    for name, damage in (("missing", None), ("torn", b"an ada"), ("swapped", b"other bytes of the same kind")):
        blob = publish(bucket, version(name), f"the adapter {name}".encode(), base_model_digest=digest)
        key = schema.adapter_blob(version(name), blob)
        bucket.delete(key)
        if damage:
            bucket.put(key, damage)
