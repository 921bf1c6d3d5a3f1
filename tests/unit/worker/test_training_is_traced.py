"""One trace from CreateTraining to the worker's last PUT, across processes and takeovers, as a collector gets it."""

import asyncio
import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
import torch

from base_models.catalog import read_allow_list
from base_models.families.stable_diffusion import StableDiffusion
from personae.v1 import trainer_pb2 as pb
from personae.v1 import trainer_pb2_grpc, training_pb2
from service_kit import schema
from service_kit.error_status import ErrorInterceptor
from service_kit.logs import JsonFormatter
from service_kit.memory_store import MemoryStore
from service_kit.metrics import ServiceMetrics
from service_kit.names import TrainingName
from service_kit.observed_store import ObservedStore
from service_kit.observing import ObservingInterceptor
from service_kit.traces import Traces, open_traces
from tests.kept_spans import collecting
from tests.unit.trainer.served_trainer import trainer_servicer
from tests.unit.trainer.trainer_fakes import Trainer
from tests.unit.worker.dying_worker import DyingStore
from trainer_service.lifecycle import State
from trainer_service.training_store import TrainingStore
from trainer_service.worker.exit_code import ExitCode
from trainer_service.worker.interrupts import Interrupts
from trainer_service.worker.run import Workbench, run_training

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CONFIG = {"steps": 2, "checkpoint_every": 1, "rank": 2, "batch_size": 1, "seed": 5, "resolution": 64, "sample_every": 0}
SERVICES = ("personae-trainer", "first-worker", "second-worker")


def traces_of(service: str) -> Traces:
    """As a process of that name would open them."""
    return open_traces(service, os.environ)


async def created(trainer: Trainer, traces: Traces) -> TrainingName:
    """A training that was asked for over the wire by somebody who traces."""
    servicer = trainer_servicer(trainer)
    observing = ObservingInterceptor(ServiceMetrics("trainer"), traces.tracer)
    server = grpc.aio.server(interceptors=[observing, ErrorInterceptor()])
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            training = training_pb2.Training(
                dataset="projects/default/datasets/cat",
                adapter_id="cat",
                config=training_pb2.TrainingConfig(**CONFIG),
            )
            stub: Any = trainer_pb2_grpc.TrainerServiceStub(channel)
            answer = await stub.CreateTraining(
                pb.CreateTrainingRequest(training=training), timeout=30, metadata=(("traceparent", CALLER),)
            )
            return TrainingName.parse(answer.training.name)
    finally:
        await server.stop(0)


def carry_out(store: MemoryStore, name: TrainingName, base: StableDiffusion, traces: Traces) -> ExitCode:
    """One take, by a worker that traces."""
    bench = Workbench(
        store=ObservedStore(store, lambda operation, outcome, seconds: None),
        base_models=read_allow_list(["toon-64"]),
        holder="worker",
        now=lambda: datetime.now(UTC),
        device=torch.device("cpu"),
        judge_for=lambda entry: None,
        tracer=traces.tracer,
        bases={"toon-64": base},
    )
    try:
        return run_training(bench, name, TrainingStore(store).read(name)[1], Interrupts())
    finally:
        traces.close()


def test_the_last_put_of_the_second_worker_is_in_the_trace_of_the_call(
    base: StableDiffusion, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer()
    trainer.dataset(count=3)
    caplog.set_level(logging.INFO)
    caplog.handler.setFormatter(JsonFormatter())
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        service, first, second = map(traces_of, SERVICES)
        name = asyncio.run(created(trainer, service))
        service.close()
        dying = DyingStore(trainer.store, lambda writes: writes[-1].endswith("/latest.json"))
        carry_out(dying, name, base, first)
        assert dying.is_dead
        assert carry_out(trainer.store, name, base, second) is ExitCode.DONE
    record, _ = TrainingStore(trainer.store).read(name)
    assert record.state is State.SUCCEEDED

    assert {span.trace_id.hex() for _, span in collector.received} == {CALLER.split("-")[1]}
    names = {service: {span.name for who, span in collector.received if who == service} for service in SERVICES}
    assert "personae.v1.TrainerService/CreateTraining" in names["personae-trainer"]
    assert {"training", "take", "prepare", "train", "checkpoint"} <= names["first-worker"]
    assert {
        "training",
        "take",
        "prepare",
        "train",
        "checkpoint",
        "prove",
        "evaluate",
        "report",
        "publish",
        "end",
    } <= names["second-worker"]
    by_id = {span.span_id: span for _, span in collector.received}
    writes = [
        span
        for who, span in collector.received
        if who == "second-worker" and span.name in ("store put", "store create", "store replace")
    ]
    last = max(writes, key=lambda span: span.end_time_unix_nano)
    assert by_id[last.parent_span_id].name == "end"
    assert [entry.value.string_value for entry in last.attributes] == [schema.training_record(name)]
    (call,) = (span for _, span in collector.received if span.name.endswith("/CreateTraining"))
    workers = [span for _, span in collector.received if span.name == "training"]
    assert [span.parent_span_id for span in workers] == [call.span_id] * 2

    lines = [json.loads(line) for line in caplog.text.splitlines() if line.startswith("{")]
    taken = [line for line in lines if "taken in epoch" in line["message"]]
    assert [(line["training"], line["trace_id"]) for line in taken] == [(str(name), CALLER.split("-")[1])] * 2
