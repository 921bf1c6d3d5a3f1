"""Adapters in the step engine, against plain diffusers with the same files, on the real bundled base model."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from base_models.catalog import BaseModelEntry
from base_models.loading import load_base_model
from base_models.pipelines import adaptable_modules
from inference_service.denoising.step_engine import StepEngine
from inference_service.engine import EngineEvent
from inference_service.generation import MAX_ADAPTERS
from service_kit.errors import PreconditionUnmet
from tests.random_adapter import ALL, ATTENTION, ATTENTION_AND_CONVOLUTION, TEXT_ATTENTION, random_adapter
from tests.unit.inference.engine_calls import Pixels, applied, assert_equal_pictures, far_apart, generated, pictures_of
from tests.unit.inference.quick_requests import TEXT, quick_request

KINDS: dict[str, dict[str, Any]] = {
    "attention": {"targets": {"unet": ATTENTION}},
    "and-convolution": {"targets": {"unet": ATTENTION_AND_CONVOLUTION}},
    "all": {"targets": {"unet": ALL}},
    "dora": {"targets": {"unet": ALL}, "is_dora": True},
    "with-text-encoder": {"targets": {"unet": ATTENTION, "text_encoder": TEXT_ATTENTION}},
    "text-encoder-dora": {"targets": {"text_encoder": TEXT_ATTENTION}, "is_dora": True},
}


def _adapter(pipeline: Any, kind: str, seed: int, rank: int = 4) -> bytes:
    return random_adapter(adaptable_modules(pipeline), seed=seed, rank=rank, **KINDS[kind])


def _drawn_by_diffusers(pipeline: Any, folder: Path, bodies: Sequence[bytes], weights: Sequence[float]) -> Pixels:
    """What plain diffusers draws with these adapter files."""
    names = [f"adapter-{index}" for index in range(len(bodies))]
    try:
        for name, body in zip(names, bodies, strict=True):
            (folder / f"{name}.safetensors").write_bytes(body)
            pipeline.load_lora_weights(folder, weight_name=f"{name}.safetensors", adapter_name=name)
        pipeline.set_adapters(names, list(weights))
        return np.asarray(
            pipeline(
                TEXT,
                num_inference_steps=4,
                guidance_scale=3.0,
                width=64,
                height=64,
                generator=torch.Generator().manual_seed(3),
            ).images[0]
        )
    finally:
        pipeline.unload_lora_weights()


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_gives_what_diffusers_gives_with_its_file(
    engine: StepEngine, plain_pipeline: Any, tmp_path: Path, kind: str
) -> None:
    body = _adapter(plain_pipeline, kind, seed=1)
    base = pictures_of(generated(engine, quick_request(3)))[3]
    with_adapter = pictures_of(generated(engine, quick_request(3), [applied(engine, body)]))[3]
    assert_equal_pictures(with_adapter, _drawn_by_diffusers(plain_pipeline, tmp_path, [body], [1.0]))
    assert far_apart(with_adapter, base)
    assert np.array_equal(pictures_of(generated(engine, quick_request(3)))[3], base)


def test_adapters_of_every_kind_add_up_by_their_weights_as_in_diffusers(
    engine: StepEngine, plain_pipeline: Any, tmp_path: Path
) -> None:
    bodies = [
        _adapter(plain_pipeline, "with-text-encoder", seed=11),
        _adapter(plain_pipeline, "dora", seed=12, rank=2),
        _adapter(plain_pipeline, "text-encoder-dora", seed=13),
    ]
    weights = [0.5, -0.7, 1.3]
    worn = [applied(engine, body, weight) for body, weight in zip(bodies, weights, strict=True)]
    found = pictures_of(generated(engine, quick_request(3), worn))[3]
    assert_equal_pictures(found, _drawn_by_diffusers(plain_pipeline, tmp_path, bodies, weights))
    for index in range(3):
        without = pictures_of(generated(engine, quick_request(3), worn[:index] + worn[index + 1 :]))[3]
        assert far_apart(found, without)


def test_a_text_encoder_adapter_changes_the_embedding_of_its_request_only(
    engine: StepEngine, plain_pipeline: Any
) -> None:
    adapter = applied(engine, random_adapter(adaptable_modules(plain_pipeline), {"text_encoder": TEXT_ATTENTION}, 14))
    base = pictures_of(generated(engine, quick_request(3)))[3]
    changed = pictures_of(generated(engine, quick_request(3), [adapter]))[3]
    other = applied(engine, _adapter(plain_pipeline, "attention", seed=15))
    after = pictures_of(generated(engine, quick_request(3), [other]))[3]
    fresh = pictures_of(generated(engine, quick_request(3), [other]))[3]
    assert far_apart(changed, base)
    assert np.array_equal(after, fresh)
    assert np.array_equal(pictures_of(generated(engine, quick_request(3)))[3], base)


def test_a_zeroed_adapter_and_one_of_weight_zero_change_nothing(engine: StepEngine, plain_pipeline: Any) -> None:
    tensors = safetensors.torch.load(_adapter(plain_pipeline, "attention", seed=2))
    body = safetensors.torch.save({name: torch.zeros_like(tensor) for name, tensor in tensors.items()})
    base = pictures_of(generated(engine, quick_request(3)))[3]
    assert_equal_pictures(pictures_of(generated(engine, quick_request(3), [applied(engine, body)]))[3], base)
    at_zero = applied(engine, _adapter(plain_pipeline, "text-encoder-dora", seed=2), weight=0.0)
    assert np.array_equal(pictures_of(generated(engine, quick_request(3), [at_zero]))[3], base)


def test_the_base_comes_back_exactly_after_an_adapter(engine: StepEngine, plain_pipeline: Any) -> None:
    before = pictures_of(generated(engine, quick_request(3)))[3]
    body = _adapter(plain_pipeline, "and-convolution", seed=3)
    generated(engine, quick_request(3), [applied(engine, body)])
    assert np.array_equal(pictures_of(generated(engine, quick_request(3)))[3], before)


def test_adapters_add_up_by_their_weights_also_when_two_share_a_file(engine: StepEngine, plain_pipeline: Any) -> None:
    body = _adapter(plain_pipeline, "attention", seed=4)
    other = _adapter(plain_pipeline, "and-convolution", seed=5, rank=2)
    whole = pictures_of(generated(engine, quick_request(3), [applied(engine, body)]))[3]
    halves = [applied(engine, body, 0.5), applied(engine, body, 0.5)]
    assert_equal_pictures(pictures_of(generated(engine, quick_request(3), halves))[3], whole)
    half = pictures_of(generated(engine, quick_request(3), halves[:1]))[3]
    both = pictures_of(generated(engine, quick_request(3), [applied(engine, body), applied(engine, other)]))[3]
    assert far_apart(half, whole)
    assert far_apart(both, whole)


def test_more_adapters_than_slots_take_turns_in_them(toon: BaseModelEntry, plain_pipeline: Any) -> None:
    engine = StepEngine(toon, load_base_model(toon, torch.device("cpu")), batch_size=16, slot_rank=4, slot_bytes=0)
    try:
        adapters = [applied(engine, _adapter(plain_pipeline, "with-text-encoder", seed)) for seed in range(12)]

        async def scenario() -> list[dict[int, Pixels]]:
            async def one(seed: int) -> dict[int, Pixels]:
                request = quick_request(seed, width=32, height=32)
                return pictures_of([result async for result in engine.generate(request, [adapters[seed]])])

            return await asyncio.gather(*[one(seed) for seed in range(12)])

        together = asyncio.run(scenario())
        assert len(engine.in_slots()) == MAX_ADAPTERS
        assert engine.in_slots() < {adapter.digest for adapter in adapters}
        for seed in (0, 11):
            alone = pictures_of(generated(engine, quick_request(seed, width=32, height=32), [adapters[seed]]))
            assert_equal_pictures(together[seed][seed], alone[seed])
            assert adapters[seed].digest in engine.in_slots()
    finally:
        engine.close()


def test_what_is_not_finite_fails_its_request_and_is_never_a_picture(engine: StepEngine, plain_pipeline: Any) -> None:
    """Every tensor of this adapter is finite and of an allowed norm; together with its weight they overflow."""
    tensors = safetensors.torch.load(_adapter(plain_pipeline, "all", seed=6))
    exploding = {name: tensor * (90 / tensor.norm()) for name, tensor in tensors.items()}
    adapter = applied(engine, safetensors.torch.save(exploding), weight=2.0)

    async def scenario() -> None:
        async def broken() -> None:
            async for _ in engine.generate(quick_request(1, steps=30, guidance_scale=30.0), [adapter]):
                pass

        async def sound() -> list[EngineEvent]:
            return [result async for result in engine.generate(quick_request(2, steps=30), ())]

        failed, results = await asyncio.gather(broken(), sound(), return_exceptions=True)
        assert isinstance(failed, PreconditionUnmet)
        assert failed.reason == "NOT_FINITE"
        assert list(pictures_of(results)) == [2]

    asyncio.run(scenario())


def test_base_weights_are_bit_equal_after_everything(engine: StepEngine, plain_pipeline: Any) -> None:
    for kind in KINDS:
        generated(engine, quick_request(3), [applied(engine, _adapter(plain_pipeline, kind, seed=8), 2.0)])
    for prefix, module in adaptable_modules(plain_pipeline).items():
        served = engine.base.adaptable[prefix].state_dict()
        assert all(torch.equal(tensor, served[name]) for name, tensor in module.state_dict().items())
