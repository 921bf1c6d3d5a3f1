"""Real services on a real store: what is deleted at one is soon not served by the other, and goes whoever is killed."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import torch

import personae
from base_models.catalog import read_allow_list
from base_models.pipelines import adaptable_modules, load_pipeline
from personae.v1 import trainer_pb2 as pb
from personae.v1 import trainer_pb2_grpc
from service_kit import schema
from service_kit.names import AdapterVersionName, DatasetName, TrainingName
from tests.bucket_adapters import publish
from tests.integration.trainer_calls import CALL_S, UNJUDGED, UNJUDGED_CONFIG, TrainerCalls, unique
from tests.random_adapter import ATTENTION, random_adapter
from tests.real_store import RealStore
from tests.service_process import ServiceProcess, running_service, service_environment

HERO = AdapterVersionName("default", "hero", 1)
GONE_WITHIN_S = 5.0
SWEPT_WITHIN_S = 60.0
LONG = {"steps": 150, "images_per_prompt": 64}


@pytest.fixture(scope="module")
def inference(real_store: RealStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("inference")
    environment = service_environment(real_store, PERSONAE_INFERENCE_CACHE_DIR=str(folder / "cache"))
    with running_service("inference_service", environment, folder / "inference.log") as service:
        yield service


def wait_until(holds: Callable[[], bool], within_s: float) -> None:
    give_up_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < give_up_s
        time.sleep(0.1)


@pytest.mark.slow
def test_a_deleted_adapter_is_not_served_five_seconds_later_and_goes_though_the_trainer_is_killed(
    inference: ServiceProcess, real_store: RealStore, tmp_path: Path
) -> None:
    entry = read_allow_list(["toon-64"])["toon-64"]
    pipeline = load_pipeline(entry, torch.device("cpu"), torch.float32)
    body = random_adapter(adaptable_modules(pipeline), {"unet": ATTENTION}, 1)
    publish(real_store.store, HERO, body, base_model_digest=entry.digest())
    environment = service_environment(real_store, PERSONAE_TRAINER_WORKERS="0")
    ended_s: list[float] = []

    def draw_for_long() -> None:
        try:
            for _ in client.generate("a red hat", adapter="hero", **LONG):
                pass
        except personae.NotFound:
            ended_s.append(time.monotonic())

    with (
        running_service("trainer_service", environment, tmp_path / "first.log") as trainer,
        personae.Client(trainer.address, inference.address) as client,
    ):
        (image,) = client.generate("a hat", adapter="hero", seeds=[1], steps=2, delivery="bucket")
        assert [found.uri for found in client.images_of("hero/versions/1")] == [image.uri]
        key = image.uri.split("/", 3)[-1]
        assert real_store.store.get(key).body
        running = threading.Thread(target=draw_for_long)
        running.start()
        wait_until(lambda: client.preload_adapter("hero").residency == "slot", SWEPT_WITHIN_S)
        client.delete_adapter("hero")
        deleted_s = time.monotonic()
        trainer.process.kill()
        running.join(SWEPT_WITHIN_S)
        assert ended_s
        assert ended_s[0] - deleted_s < GONE_WITHIN_S
        wait_until(lambda: time.monotonic() - deleted_s > GONE_WITHIN_S, SWEPT_WITHIN_S)
        for name in ("hero", "hero/versions/1"):
            with pytest.raises(personae.NotFound):
                list(client.generate("a hat", adapter=name, seeds=[1], steps=2))
        assert list(client.images_of("hero/versions/1")) == []
        assert client.look_up_image(image).adapters[0].name == str(HERO)
        assert not list(client.served_adapters())

    def in_folder() -> list[str]:
        made = schema.made_images_prefix(HERO)
        return [found for found in real_store.store.keys(schema.folder(HERO)) if not found.startswith(made)]

    assert len(in_folder()) > 1
    with running_service("trainer_service", environment, tmp_path / "second.log") as trainer:
        wait_until(lambda: in_folder() == [schema.tombstone(HERO)], SWEPT_WITHIN_S)
        assert key not in list(real_store.store.keys("projects/default/generations/"))
        with personae.Client(trainer.address) as client, pytest.raises(personae.NotFound):
            client.delete_adapter("hero")


@pytest.mark.slow
def test_a_training_that_runs_on_a_deleted_dataset_stops_and_its_worker_takes_the_next(
    real_store: RealStore, tmp_path: Path
) -> None:
    environment = service_environment(real_store, **UNJUDGED)
    with (
        running_service("trainer_service", environment, tmp_path / "trainer.log") as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        trainer = TrainerCalls(trainer_pb2_grpc.TrainerServiceStub(channel))
        dataset = trainer.dataset(count=3)
        training = trainer.train(dataset, **{**UNJUDGED_CONFIG, "steps": 5000})
        events = trainer.events(training.name)
        while next(events).progress.loss == 0:
            pass
        trainer.stub.DeleteDataset(pb.DeleteDatasetRequest(name=dataset), timeout=CALL_S)
        with pytest.raises(grpc.RpcError) as caught:
            list(events)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
        for name, rpc, request in (
            (dataset, "GetDataset", pb.GetDatasetRequest),
            (training.name, "GetTraining", pb.GetTrainingRequest),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                getattr(trainer.stub, rpc)(request(name=name), timeout=CALL_S)
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
        next_one = trainer.train(trainer.dataset(count=3), adapter_id=unique("next"), **{**UNJUDGED_CONFIG, "steps": 2})
        assert trainer.finish(next_one.name).adapter == next_one.adapter
        pictures = f"{DatasetName.parse(dataset)}/images/"
        wait_until(lambda: not list(real_store.store.keys(pictures)), SWEPT_WITHIN_S)
        assert real_store.store.get(schema.tombstone(TrainingName.parse(training.name))).body
