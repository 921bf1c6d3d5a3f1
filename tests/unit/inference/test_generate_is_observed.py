"""What operators see of a generation: its metrics, its trace, its log line; and what they must not see."""

import json
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import generate_latest

from service_kit.logs import JsonFormatter
from service_kit.metrics import ServiceMetrics
from service_kit.names import AdapterVersionName
from service_kit.observing import CALL_ID
from service_kit.serving import Watched
from service_kit.traces import Traces
from tests.bucket_adapters import publish
from tests.kept_spans import KeptSpans
from tests.metric_values import values
from tests.unit.inference.fake_serving import PATIENCE_S, FakeServing, ask, ask_with_adapter, rest_of, serve

V1 = AdapterVersionName("default", "hero", 1)
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REFUSED = "INVALID_REQUEST"
PLACES = ("slot", "host", "disk", "bucket")
SECRET = "a thing nobody may read"
METHOD = 'method="Generate",service="personae.v1.InferenceService"'


def observed(
    folder: Path, scenario: Callable[[FakeServing], Coroutine[Any, Any, None]], traces: Traces, **options: Any
) -> dict[str, float]:
    """Run a scenario; what a scrape says afterwards."""
    metrics = ServiceMetrics("inference")
    serve(folder, scenario, watched=Watched(metrics, traces), **options)
    return values(generate_latest(metrics.registry).decode())


UNTRACED = Traces(None, lambda: None)


def calls(found: dict[str, float], code: str, reason: str) -> float:
    """How many ended so."""
    of_generate = f'method="Generate",reason="{reason}",service="personae.v1.InferenceService"'
    return found[f'personae_rpc_requests_total{{code="{code}",{of_generate}}}']


class LogLines(logging.Handler):
    """Lines as they would be written, in the thread and the context that log them."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def of_calls(self) -> list[dict[str, Any]]:
        """Those that say how a call ended."""
        return [entry for line in self.lines if "code" in (entry := json.loads(line))]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[LogLines]:
    # As services are set.
    caplog.set_level(logging.INFO)
    handler = LogLines()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


def test_images_calls_and_fetches_are_counted(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(serving.store, V1)
        await serving.generate(ask_with_adapter(V1))
        await serving.generate(ask_with_adapter(V1))
        with pytest.raises(grpc.aio.AioRpcError):
            await serving.generate(ask(1, steps=10_000))

    found = observed(tmp_path, scenario, UNTRACED)
    assert found['personae_inference_images_total{outcome="made"}'] == 2
    assert found["personae_inference_queue_seconds_count"] == found["personae_inference_generation_seconds_count"] == 2
    assert calls(found, "OK", "") == 2
    assert calls(found, "INVALID_ARGUMENT", REFUSED) == 1
    assert found[f"personae_rpc_duration_seconds_count{{{METHOD}}}"] == 3
    assert found[f"personae_rpc_in_flight{{{METHOD}}}"] == found[f"personae_rpc_streams_open{{{METHOD}}}"] == 0
    places = {place: found[f'personae_inference_adapter_fetches_total{{place="{place}"}}'] for place in PLACES}
    assert places == {"slot": 1, "host": 0, "disk": 0, "bucket": 1}
    assert found['personae_inference_adapter_bytes{place="host"}'] == len(b"an adapter")
    assert not [name for name in found if "hero" in name or "default" in name]


def test_an_open_stream_counts_until_its_caller_leaves(tmp_path: Path) -> None:
    metrics = ServiceMetrics("inference")

    async def scenario(serving: FakeServing) -> None:
        serving.engine.gate.clear()
        call = serving.stub.Generate(ask(1), timeout=PATIENCE_S)
        await call.read()
        found = values(generate_latest(metrics.registry).decode())
        assert found[f"personae_rpc_streams_open{{{METHOD}}}"] == 1
        assert found["personae_inference_requests_open"] == 1
        call.cancel()
        await serving.engine.freed.wait()

    serve(tmp_path, scenario, watched=Watched(metrics, UNTRACED))
    found = values(generate_latest(metrics.registry).decode())
    assert found[f"personae_rpc_streams_open{{{METHOD}}}"] == found["personae_inference_requests_open"] == 0
    assert calls(found, "CANCELLED", "") == 1


def test_a_generation_is_one_trace_from_its_caller_to_the_last_byte(tmp_path: Path) -> None:
    spans = KeptSpans()

    async def scenario(serving: FakeServing) -> None:
        publish(serving.store, V1)
        call = serving.stub.Generate(ask_with_adapter(V1), timeout=PATIENCE_S, metadata=(("traceparent", CALLER),))
        assert (await rest_of(call))[-1].HasField("done")

    observed(tmp_path, scenario, spans.traces)
    assert {f"{span.context.trace_id:032x}" for span in spans.ended} == {CALLER.split("-")[1]}
    (rpc,) = spans.named("personae.v1.InferenceService/Generate")
    assert rpc.parent is not None
    assert f"{rpc.parent.span_id:016x}" == CALLER.split("-")[2]
    expected = {"admit", "check", "fetch adapter", "denoise", "finish image", "send image"}
    assert expected <= set(spans.below(rpc))
    (fetch,) = spans.named("fetch adapter")
    assert "store get" in spans.below(fetch)
    last = max(span.end_time or 0 for span in spans.ended if span is not rpc)
    assert last <= (rpc.end_time or 0)


def test_a_refusal_and_an_answer_bear_the_id_under_which_the_log_has_them(tmp_path: Path, log: LogLines) -> None:
    ids = []

    async def scenario(serving: FakeServing) -> None:
        call = serving.stub.Generate(ask(1), timeout=PATIENCE_S)
        await rest_of(call)
        ids.append(dict(await call.trailing_metadata())[CALL_ID])
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await serving.generate(ask(1, steps=10_000))
        ids.append(dict(refused.value.trailing_metadata())[CALL_ID])

    observed(tmp_path, scenario, UNTRACED)
    answered, refused = log.of_calls()
    assert [answered["call"], refused["call"]] == ids
    assert (answered["code"], answered["reason"], answered["project"]) == ("OK", "", "default")
    assert len(answered["generation"]) == 16
    assert (refused["method"], refused["code"], refused["reason"]) == ("Generate", "INVALID_ARGUMENT", REFUSED)
    assert 0 < answered["seconds"] < PATIENCE_S


def test_no_line_and_no_span_holds_what_a_caller_wrote(tmp_path: Path, log: LogLines) -> None:
    spans = KeptSpans()
    metadata = (("authorization", f"Bearer {SECRET}"), ("traceparent", SECRET))

    async def scenario(serving: FakeServing) -> None:
        for request in (
            ask(1, negative_prompt=SECRET),
            ask(1, negative_prompt=SECRET, base_model=SECRET),
            ask(1, negative_prompt=SECRET, project=SECRET),
            ask(1, negative_prompt=SECRET, steps=10_000),
        ):
            call = serving.stub.Generate(request, timeout=PATIENCE_S, metadata=metadata)
            with suppress(grpc.aio.AioRpcError):
                await rest_of(call)

    observed(tmp_path, scenario, spans.traces)
    assert len(log.of_calls()) == len(spans.named("personae.v1.InferenceService/Generate")) == 4
    assert SECRET not in "".join(log.lines)
    assert SECRET not in "".join(span.to_json() for span in spans.ended)
