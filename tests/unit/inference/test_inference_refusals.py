"""InferenceService over a real port with a fake engine: what is refused, how, and that it goes on serving."""

import math
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2

from personae.v1 import inference_pb2 as pb
from service_kit import schema
from service_kit.memory_store import MemoryStore
from service_kit.names import AdapterVersionName
from service_kit.store import StoredObject, StoreUnavailable
from tests.bucket_adapters import publish, reserve
from tests.unit.inference.fake_serving import (
    BROKEN_FILE,
    FakeServing,
    ask,
    ask_with_adapter,
    refusal_of,
    serve,
)

V1 = AdapterVersionName("default", "hero", 1)
V2 = AdapterVersionName("default", "hero", 2)


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
            preview_every=151,
            delivery=97,  # type: ignore[arg-type]
        )
        code, reason, bad_request = await refusal_of(serving, request, error_details_pb2.BadRequest)
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
            "preview_every",
            "delivery",
        }
        await serving.generate(ask(1))

    serve(tmp_path, scenario)


def test_a_thousand_violations_still_fit_into_an_answer(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        prompt = pb.GenerateRequest.Prompt(text="\0" * 100, seeds=[-1] * 64)
        request = pb.GenerateRequest(base_model="\N{PILE OF POO}" * 10_000, prompts=[prompt] * 64)
        code, _, bad_request = await refusal_of(serving, request, error_details_pb2.BadRequest)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert bad_request.field_violations[0].field == "base_model"
        assert bad_request.field_violations[-1].description.endswith(" more")

    serve(tmp_path, scenario)


def test_an_unknown_adapter_is_not_found(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(serving.store, V1)
        for name in (V2, "projects/default/adapters/nobody", "projects/other/adapters/hero/versions/1"):
            code, _, resource = await refusal_of(serving, ask_with_adapter(name), error_details_pb2.ResourceInfo)
            assert code == grpc.StatusCode.NOT_FOUND
            assert (resource.resource_type, resource.resource_name) == ("Adapter", str(name))

    serve(tmp_path, scenario)


def test_an_adapter_that_is_still_training_names_its_training(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        reserve(serving.store, V1)
        for name in (V1, V1.adapter_name):
            code, reason, failure = await refusal_of(
                serving, ask_with_adapter(name), error_details_pb2.PreconditionFailure
            )
            assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ADAPTER_STILL_TRAINING")
            assert failure.violations[0].subject == "projects/default/trainings/of-hero"

    serve(tmp_path, scenario)


def test_an_adapter_whose_training_came_to_nothing_is_not_found(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        reserve(serving.store, V1)
        serving.store.put(schema.adapter_abandonment(V1), b"{}")
        for name in (V1, V1.adapter_name):
            code, _, _ = await refusal_of(serving, ask_with_adapter(name), error_details_pb2.ResourceInfo)
            assert code == grpc.StatusCode.NOT_FOUND

    serve(tmp_path, scenario)


@pytest.mark.parametrize("other", [{"base_model": "other"}, {"base_model_digest": "e" * 64}])
def test_an_adapter_of_another_base_model_is_refused_naming_both(tmp_path: Path, other: dict[str, str]) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(serving.store, V1, **other)
        code, reason, failure = await refusal_of(serving, ask_with_adapter(V1), error_details_pb2.PreconditionFailure)
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BASE_MODEL_MISMATCH")
        for named in ("toon-64", "d" * 16, *(value[:16] for value in other.values())):
            assert named in failure.violations[0].description

    serve(tmp_path, scenario)


def test_an_adapter_file_that_is_none_is_refused_with_the_reason(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(serving.store, V1, BROKEN_FILE)
        code, reason, failure = await refusal_of(serving, ask_with_adapter(V1), error_details_pb2.PreconditionFailure)
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ADAPTER_INVALID")
        assert "a fake reason" in failure.violations[0].description

    serve(tmp_path, scenario)


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
            await serving.generate(ask_with_adapter(V1))
        assert caught.value.code() == grpc.StatusCode.DATA_LOSS
        assert len(await serving.generate(ask_with_adapter(V2))) == 4

    serve(tmp_path, scenario)


def test_a_store_that_is_away_is_said_to_be_so(tmp_path: Path) -> None:
    class AwayStore(MemoryStore):
        def get(self, key: str) -> StoredObject:
            raise StoreUnavailable("connection refused")

    async def scenario(serving: FakeServing) -> None:
        code, reason, retry = await refusal_of(serving, ask_with_adapter(V1), error_details_pb2.RetryInfo)
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert retry.retry_delay.ToMilliseconds() > 0
        # The base model is read from no store, and this one still takes what is written down of its images.
        await serving.generate(ask(1))

    serve(tmp_path, scenario, bucket=AwayStore())
