"""InferenceService over a real port: every answer a caller can get, with a fake engine."""

import asyncio
import hashlib
import io
import json
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from personae.v1 import inference_pb2 as pb
from PIL import Image

from service_kit import schema
from service_kit.memory_store import MemoryStore
from service_kit.names import AdapterVersionName
from service_kit.store import StoredObject, StoreUnavailable
from tests.unit.inference.fake_serving import BROKEN_FILE, PATIENCE_S, FakeServing, fake_serving, publish, reserve

V1 = AdapterVersionName("default", "hero", 1)
V2 = AdapterVersionName("default", "hero", 2)
D = TypeVar("D")


def _serve(folder: Path, scenario: Callable[[FakeServing], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with fake_serving(folder, **options) as serving:
            await scenario(serving)

    asyncio.run(asyncio.wait_for(run(), 3 * PATIENCE_S))


def _ask(*seeds: int, **fields: Any) -> pb.GenerateRequest:
    prompts = [pb.GenerateRequest.Prompt(text="a red hat", seeds=seeds)]
    return pb.GenerateRequest(**({"prompts": prompts, "steps": 2} | fields))


def _with_adapter(name: object) -> pb.GenerateRequest:
    return _ask(1, adapters=[pb.AdapterWeight(adapter=str(name))])


async def _refusal(
    serving: FakeServing, request: pb.GenerateRequest, detail: type[D]
) -> tuple[grpc.StatusCode, str, D]:
    """Status, reason and one detail of a call that must fail before anything is computed."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await serving.generate(request)
    status = rpc_status.from_call(caught.value)
    assert status is not None
    info, found = error_details_pb2.ErrorInfo(), detail()
    assert status.details[0].Unpack(info)
    assert info.domain == "personae"
    assert status.details[1].Unpack(found)
    assert serving.engine.computed == []
    assert serving.studio.admission.waiting == 0
    return caught.value.code(), info.reason, found


def test_a_generation_is_accepted_then_told_of_then_done(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        messages = await serving.generate(_ask(7, 8))
        # The clock stands still, so only the first progress message is due.
        assert [message.WhichOneof("kind") for message in messages] == [
            "accepted",
            "progress",
            "image",
            "image",
            "done",
        ]
        assert messages[0].accepted.image_count == 2
        assert messages[1].progress.indices == [0]
        assert [(m.image.index, m.image.seed) for m in messages if m.HasField("image")] == [(0, 7), (1, 8)]
        assert messages[-1].done.image_count == 2

    _serve(tmp_path, scenario)


def test_the_effective_request_holds_every_default_and_asks_for_the_same_again(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        request = pb.GenerateRequest(prompts=[pb.GenerateRequest.Prompt(text="a red hat")], images_per_prompt=3)
        first = await serving.generate(request)
        effective = first[0].accepted.effective_request
        assert effective.base_model == "toon-64"
        assert (effective.steps, effective.guidance_scale, effective.width, effective.height) == (20, 3.0, 64, 64)
        assert (effective.scheduler, effective.format) == (pb.SCHEDULER_DDIM, pb.IMAGE_FORMAT_PNG)
        assert len(set(effective.prompts[0].seeds)) == 3
        again = await serving.generate(effective)
        assert again[0].accepted.effective_request == effective
        digests = [[m.image.digest for m in messages if m.HasField("image")] for messages in (first, again)]
        assert digests[0] == digests[1]

    _serve(tmp_path, scenario)


@pytest.mark.parametrize(
    ("file_format", "media_type"),
    [
        (pb.IMAGE_FORMAT_UNSPECIFIED, "image/png"),
        (pb.IMAGE_FORMAT_WEBP, "image/webp"),
        (pb.IMAGE_FORMAT_JPEG, "image/jpeg"),
    ],
)
def test_an_image_is_a_file_that_says_where_it_came_from(
    tmp_path: Path, file_format: pb.ImageFormat, media_type: str
) -> None:
    async def scenario(serving: FakeServing) -> None:
        digest = publish(serving.store, V1)
        request = _with_adapter(V1)
        request.format = file_format
        request.width = 96
        (image,) = [message.image for message in await serving.generate(request) if message.HasField("image")]
        assert image.media_type == media_type
        assert image.digest == hashlib.sha256(image.content).hexdigest()
        assert image.finish_reason == pb.GenerateResponse.Image.FINISH_REASON_COMPLETED
        picture = Image.open(io.BytesIO(image.content))
        assert (picture.width, picture.height) == (image.width, image.height) == (96, 64)
        assert picture.get_format_mimetype() == media_type
        exif = picture.getexif()
        says = picture.info if "prompt" in picture.info else json.loads(exif[0x010E]) | {"Software": exif[0x0131]}
        assert says["Software"] == "personae"
        assert (says["prompt"], says["seed"], says["base_model"]) == ("a red hat", "1", "toon-64")
        assert json.loads(says["adapters"]) == [{"adapter": str(V1), "digest": digest, "weight": 1.0}]

    _serve(tmp_path, scenario)


def test_everything_wrong_with_a_request_is_said_in_one_answer(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        request = pb.GenerateRequest(
            base_model="attacker/repo",
            adapters=[
                pb.AdapterWeight(adapter="../x", weight=1e9),
                pb.AdapterWeight(adapter=str(V1)),
                pb.AdapterWeight(adapter=str(V1.adapter_name), weight=math.nan),
            ],
            prompts=[
                pb.GenerateRequest.Prompt(text="  ", seeds=[-1]),
                pb.GenerateRequest.Prompt(text="nul\0"),
                pb.GenerateRequest.Prompt(text="word " * 39),
            ],
            negative_prompt="x" * 10_001,
            images_per_prompt=10_000,
            guidance_scale=math.nan,
            steps=0,
            scheduler=99,  # type: ignore[arg-type]
            format=98,  # type: ignore[arg-type]
            width=513,
            height=-8,
        )
        code, reason, bad_request = await _refusal(serving, request, error_details_pb2.BadRequest)
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert {violation.field for violation in bad_request.field_violations} == {
            "base_model",
            "adapters[0].adapter",
            "adapters[0].weight",
            "adapters[2].adapter",
            "adapters[2].weight",
            "prompts",
            "prompts[0].text",
            "prompts[0].seeds[0]",
            "prompts[1].text",
            "prompts[2].text",
            "negative_prompt",
            "images_per_prompt",
            "guidance_scale",
            "steps",
            "scheduler",
            "format",
            "width",
            "height",
        }
        await serving.generate(_ask(1))

    _serve(tmp_path, scenario)


def test_a_thousand_violations_still_fit_into_an_answer(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        prompt = pb.GenerateRequest.Prompt(text="\0" * 100, seeds=[-1] * 64)
        request = pb.GenerateRequest(base_model="\N{PILE OF POO}" * 10_000, prompts=[prompt] * 64)
        code, _, bad_request = await _refusal(serving, request, error_details_pb2.BadRequest)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert bad_request.field_violations[0].field == "base_model"
        assert bad_request.field_violations[-1].description.endswith(" more")

    _serve(tmp_path, scenario)


def test_an_unknown_adapter_is_not_found(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(serving.store, V1)
        for name in (V2, "projects/default/adapters/nobody", "projects/other/adapters/hero/versions/1"):
            code, _, resource = await _refusal(serving, _with_adapter(name), error_details_pb2.ResourceInfo)
            assert code == grpc.StatusCode.NOT_FOUND
            assert (resource.resource_type, resource.resource_name) == ("Adapter", str(name))

    _serve(tmp_path, scenario)


def test_an_adapter_that_is_still_training_names_its_training(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        reserve(serving.store, V1)
        for name in (V1, V1.adapter_name):
            code, reason, failure = await _refusal(serving, _with_adapter(name), error_details_pb2.PreconditionFailure)
            assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ADAPTER_STILL_TRAINING")
            assert failure.violations[0].subject == "projects/default/trainings/of-hero"

    _serve(tmp_path, scenario)


def test_the_latest_published_version_is_used_while_the_next_one_trains(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(serving.store, V1)
        reserve(serving.store, V2)

        async def used() -> str:
            accepted = (await serving.generate(_with_adapter(V1.adapter_name)))[0].accepted
            return accepted.effective_request.adapters[0].adapter

        assert await used() == str(V1)
        publish(serving.store, V2)
        serving.clock.now_s += 2.1
        assert await used() == str(V2)

    _serve(tmp_path, scenario)


@pytest.mark.parametrize("other", [{"base_model": "other"}, {"base_model_digest": "e" * 64}])
def test_an_adapter_of_another_base_model_is_refused_naming_both(tmp_path: Path, other: dict[str, str]) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(serving.store, V1, **other)
        code, reason, failure = await _refusal(serving, _with_adapter(V1), error_details_pb2.PreconditionFailure)
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BASE_MODEL_MISMATCH")
        for named in ("toon-64", "d" * 16, *(value[:16] for value in other.values())):
            assert named in failure.violations[0].description

    _serve(tmp_path, scenario)


def test_an_adapter_file_that_is_none_is_refused_with_the_reason(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(serving.store, V1, BROKEN_FILE)
        code, reason, failure = await _refusal(serving, _with_adapter(V1), error_details_pb2.PreconditionFailure)
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ADAPTER_INVALID")
        assert "a fake reason" in failure.violations[0].description

    _serve(tmp_path, scenario)


@pytest.mark.parametrize("damage", ["missing", "torn", "manifest"])
def test_damaged_adapter_bytes_are_data_loss_and_others_go_on(tmp_path: Path, damage: str) -> None:
    async def scenario(serving: FakeServing) -> None:
        digest = publish(serving.store, V1)
        publish(serving.store, V2, b"another adapter")
        if damage == "missing":
            serving.store.delete(schema.adapter_blob(V1, digest))
        elif damage == "torn":
            serving.store.put(schema.adapter_blob(V1, digest), b"an ada")
        else:
            serving.store.put(schema.adapter_manifest(V1), b"{")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await serving.generate(_with_adapter(V1))
        assert caught.value.code() == grpc.StatusCode.DATA_LOSS
        assert len(await serving.generate(_with_adapter(V2))) == 4

    _serve(tmp_path, scenario)


def test_a_store_that_is_away_is_said_to_be_so(tmp_path: Path) -> None:
    class AwayStore(MemoryStore):
        def get(self, key: str) -> StoredObject:
            raise StoreUnavailable("connection refused")

    async def scenario(serving: FakeServing) -> None:
        code, reason, retry = await _refusal(serving, _with_adapter(V1), error_details_pb2.RetryInfo)
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert retry.retry_delay.ToMilliseconds() > 0
        # The base model needs no store.
        await serving.generate(_ask(1))

    _serve(tmp_path, scenario, bucket=AwayStore())


def test_a_full_queue_refuses_with_a_time_to_try_again(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        serving.engine.gate.clear()
        held = serving.stub.Generate(_ask(1, 2, 3), timeout=PATIENCE_S)
        assert (await held.read()).accepted.image_count == 3
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await serving.generate(_ask(4, 5))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        status = rpc_status.from_call(caught.value)
        assert status is not None
        retry = error_details_pb2.RetryInfo()
        assert status.details[1].Unpack(retry)
        assert 0.5 <= retry.retry_delay.ToMilliseconds() / 1000 <= 60
        serving.engine.gate.set()
        while (message := await held.read()) is not grpc.aio.EOF:
            last = message
        assert last.HasField("done")
        await serving.generate(_ask(4, 5))

    _serve(tmp_path, scenario, limit=4)


def test_who_waits_is_told_how_many_images_are_ahead(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        serving.engine.gate.clear()
        first = serving.stub.Generate(_ask(1, 2, 3), timeout=PATIENCE_S)
        await first.read()
        second = serving.stub.Generate(_ask(4), timeout=PATIENCE_S)
        assert (await second.read()).HasField("accepted")
        assert (await second.read()).queued.images_ahead == 3
        info = await serving.stub.GetServingInfo(pb.GetServingInfoRequest(), timeout=PATIENCE_S)
        assert (info.images_waiting, info.images_waiting_limit) == (4, 256)
        assert serving.engine.computed == []

    _serve(tmp_path, scenario)


def test_a_cancelled_generation_frees_its_places_and_computes_nothing(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        serving.engine.gate.clear()
        call = serving.stub.Generate(_ask(1, 2, 3), timeout=PATIENCE_S)
        await call.read()
        await serving.engine.begun.wait()
        call.cancel()
        await serving.engine.freed.wait()
        serving.engine.gate.set()
        assert serving.engine.computed == []
        assert len([m for m in await serving.generate(_ask(*range(4))) if m.HasField("image")]) == 4

    _serve(tmp_path, scenario, limit=4)


def test_a_deadline_that_passes_in_the_queue_costs_nothing(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        serving.engine.gate.clear()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in serving.stub.Generate(_ask(1), timeout=0.3):
                pass
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await serving.engine.freed.wait()
        serving.engine.gate.set()
        assert serving.engine.computed == []
        await serving.generate(_ask(2))

    _serve(tmp_path, scenario)


def test_a_client_that_leaves_between_images_frees_the_engine(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        prompt = pb.GenerateRequest.Prompt(text="noise", seeds=range(64))
        request = pb.GenerateRequest(prompts=[prompt] * 4, steps=1, width=128, height=128)
        call = serving.stub.Generate(request, timeout=PATIENCE_S)
        await call.read()
        # 256 files of 50 KB are more than a connection holds back, so the handler cannot have written them all.
        await serving.engine.begun.wait()
        call.cancel()
        await serving.engine.freed.wait()
        assert len(serving.engine.computed) < 256
        assert len([m for m in await serving.generate(_ask(*range(64))) if m.HasField("image")]) == 64

    _serve(tmp_path, scenario)


def test_adapters_reach_the_engine_with_their_weights(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        digest = publish(serving.store, V1)
        request = _ask(1, adapters=[pb.AdapterWeight(adapter=str(V1), weight=-0.5)])
        await serving.generate(request)
        (applied,) = serving.engine.adapters
        assert (applied.name, applied.digest, applied.weight) == (V1, digest, -0.5)

    _serve(tmp_path, scenario)


def test_serving_info_says_what_can_be_asked(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        info = await serving.stub.GetServingInfo(pb.GetServingInfoRequest(), timeout=PATIENCE_S)
        (base,) = info.base_models
        assert (base.base_model, base.digest) == ("toon-64", "d" * 64)
        assert (base.size_step, base.min_size, base.max_size, base.default_size) == (16, 32, 128, 64)
        assert (base.max_prompt_tokens, base.default_steps, base.default_guidance_scale) == (38, 20, 3.0)
        assert base.default_scheduler == pb.SCHEDULER_DDIM

    _serve(tmp_path, scenario)


def test_what_is_not_built_yet_says_so(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        calls = (
            (serving.stub.ListServedAdapters, pb.ListServedAdaptersRequest()),
            (serving.stub.PreloadAdapter, pb.PreloadAdapterRequest()),
            (serving.stub.LookUpImage, pb.LookUpImageRequest()),
        )
        for call, request in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(request, timeout=PATIENCE_S)
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED

    _serve(tmp_path, scenario)
