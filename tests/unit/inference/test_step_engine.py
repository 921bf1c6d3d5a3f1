"""The step engine behind its port, on the real bundled base model."""

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

from base_models.catalog import BaseModelEntry
from base_models.loading import load_base_model
from base_models.pipelines import adaptable_modules
from inference_service.denoising.step_engine import StepEngine
from inference_service.engine import AppliedAdapter, EngineEvent, Picture
from inference_service.events import Progress
from inference_service.generation import MAX_ADAPTERS, GenerationRequest, Prompt
from service_kit.errors import PreconditionUnmet
from service_kit.names import AdapterVersionName
from tests.random_adapter import ALL, ATTENTION, ATTENTION_AND_CONVOLUTION, TEXT_ATTENTION, random_adapter
from tests.unit.inference.quick_requests import TEXT, quick_request

Pixels = NDArray[np.uint8]


def _generate(
    engine: StepEngine, request: GenerationRequest, adapters: Sequence[AppliedAdapter] = ()
) -> list[EngineEvent]:
    async def collect() -> list[EngineEvent]:
        return [result async for result in engine.generate(request, adapters)]

    return asyncio.run(collect())


def _pictures(results: Iterable[EngineEvent]) -> dict[int, Pixels]:
    return {result.task.seed: result.pixels_HWC for result in results if isinstance(result, Picture)}


def _applied(engine: StepEngine, body: bytes, weight: float = 1.0) -> AppliedAdapter:
    digest = hashlib.sha256(body).hexdigest()
    return AppliedAdapter(AdapterVersionName("default", "test", 1), digest, weight, engine.read_adapter(body))


def _assert_equal_pictures(found: Pixels, wanted: Pixels) -> None:
    """Equality of pictures: within 1/255 on 99.9 % of values."""
    difference = np.abs(found.astype(int) - wanted.astype(int))
    assert (difference <= 1).mean() >= 0.999


def _far_apart(found: Pixels, other: Pixels) -> bool:
    return bool((np.abs(found.astype(int) - other.astype(int)) > 1).mean() > 0.1)


def test_every_image_comes_once_with_its_seed_and_place(engine: StepEngine) -> None:
    request = quick_request(prompts=(Prompt(TEXT, (5, 2**63 - 1)), Prompt("a character in the rain", (5, 0))))
    results = _generate(engine, request)
    tasks = [result.task for result in results if isinstance(result, Picture)]
    assert [(task.index, task.prompt_index, task.seed) for task in tasks] == [
        (0, 0, 5),
        (1, 0, 2**63 - 1),
        (2, 1, 5),
        (3, 1, 0),
    ]
    assert all(result.pixels_HWC.shape == (64, 64, 3) for result in results if isinstance(result, Picture))


def test_progress_counts_every_step_of_every_image(engine: StepEngine) -> None:
    results = _generate(engine, quick_request(1, 2, 3, 4))
    told = [
        (index, result.completed_steps)
        for result in results
        if isinstance(result, Progress)
        for index in result.indices
    ]
    for image in range(4):
        assert [step for index, step in told if index == image] == list(range(5))


def test_an_image_does_not_depend_on_its_group(engine: StepEngine) -> None:
    together = _pictures(_generate(engine, quick_request(7, 8, 9)))
    alone = _pictures(_generate(engine, quick_request(8)))
    _assert_equal_pictures(together[8], alone[8])
    assert _far_apart(together[8], together[7])


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpm_solver_multistep"])
def test_every_scheduler_gives_what_diffusers_gives(engine: StepEngine, plain_pipeline: Any, scheduler: str) -> None:
    classes = {
        "ddim": diffusers.DDIMScheduler,
        "euler": diffusers.EulerDiscreteScheduler,
        "dpm_solver_multistep": diffusers.DPMSolverMultistepScheduler,
    }
    own = plain_pipeline.scheduler
    try:
        plain_pipeline.scheduler = classes[scheduler].from_config(own.config)
        wanted = plain_pipeline(
            TEXT,
            negative_prompt="blue",
            num_inference_steps=6,
            guidance_scale=4.0,
            width=48,
            height=64,
            generator=torch.Generator().manual_seed(3),
        ).images[0]
    finally:
        plain_pipeline.scheduler = own
    request = quick_request(
        3, scheduler=scheduler, negative_prompt="blue", steps=6, guidance_scale=4.0, width=48, height=64
    )
    _assert_equal_pictures(_pictures(_generate(engine, request))[3], np.asarray(wanted))


def test_guidance_negative_prompt_and_steps_each_change_the_picture(engine: StepEngine) -> None:
    base = _pictures(_generate(engine, quick_request(3)))[3]
    for change in ({"guidance_scale": 8.0}, {"negative_prompt": "red hat"}, {"steps": 9}, {"scheduler": "euler"}):
        assert _far_apart(base, _pictures(_generate(engine, quick_request(3, **change)))[3])


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
    base = _pictures(_generate(engine, quick_request(3)))[3]
    with_adapter = _pictures(_generate(engine, quick_request(3), [_applied(engine, body)]))[3]
    _assert_equal_pictures(with_adapter, _drawn_by_diffusers(plain_pipeline, tmp_path, [body], [1.0]))
    assert _far_apart(with_adapter, base)
    assert np.array_equal(_pictures(_generate(engine, quick_request(3)))[3], base)


def test_adapters_of_every_kind_add_up_by_their_weights_as_in_diffusers(
    engine: StepEngine, plain_pipeline: Any, tmp_path: Path
) -> None:
    bodies = [
        _adapter(plain_pipeline, "with-text-encoder", seed=11),
        _adapter(plain_pipeline, "dora", seed=12, rank=2),
        _adapter(plain_pipeline, "text-encoder-dora", seed=13),
    ]
    weights = [0.5, -0.7, 1.3]
    applied = [_applied(engine, body, weight) for body, weight in zip(bodies, weights, strict=True)]
    found = _pictures(_generate(engine, quick_request(3), applied))[3]
    _assert_equal_pictures(found, _drawn_by_diffusers(plain_pipeline, tmp_path, bodies, weights))
    for index in range(3):
        without = _pictures(_generate(engine, quick_request(3), applied[:index] + applied[index + 1 :]))[3]
        assert _far_apart(found, without)


def test_a_text_encoder_adapter_changes_the_embedding_of_its_request_only(
    engine: StepEngine, plain_pipeline: Any
) -> None:
    adapter = _applied(engine, random_adapter(adaptable_modules(plain_pipeline), {"text_encoder": TEXT_ATTENTION}, 14))
    base = _pictures(_generate(engine, quick_request(3)))[3]
    changed = _pictures(_generate(engine, quick_request(3), [adapter]))[3]
    other = _applied(engine, _adapter(plain_pipeline, "attention", seed=15))
    after = _pictures(_generate(engine, quick_request(3), [other]))[3]
    fresh = _pictures(_generate(engine, quick_request(3), [other]))[3]
    assert _far_apart(changed, base)
    assert np.array_equal(after, fresh)
    assert np.array_equal(_pictures(_generate(engine, quick_request(3)))[3], base)


def test_a_zeroed_adapter_and_one_of_weight_zero_change_nothing(engine: StepEngine, plain_pipeline: Any) -> None:
    tensors = safetensors.torch.load(_adapter(plain_pipeline, "attention", seed=2))
    body = safetensors.torch.save({name: torch.zeros_like(tensor) for name, tensor in tensors.items()})
    base = _pictures(_generate(engine, quick_request(3)))[3]
    _assert_equal_pictures(_pictures(_generate(engine, quick_request(3), [_applied(engine, body)]))[3], base)
    at_zero = _applied(engine, _adapter(plain_pipeline, "text-encoder-dora", seed=2), weight=0.0)
    assert np.array_equal(_pictures(_generate(engine, quick_request(3), [at_zero]))[3], base)


def test_the_base_comes_back_exactly_after_an_adapter(engine: StepEngine, plain_pipeline: Any) -> None:
    before = _pictures(_generate(engine, quick_request(3)))[3]
    body = _adapter(plain_pipeline, "and-convolution", seed=3)
    _generate(engine, quick_request(3), [_applied(engine, body)])
    assert np.array_equal(_pictures(_generate(engine, quick_request(3)))[3], before)


def test_adapters_add_up_by_their_weights_also_when_two_share_a_file(engine: StepEngine, plain_pipeline: Any) -> None:
    body = _adapter(plain_pipeline, "attention", seed=4)
    other = _adapter(plain_pipeline, "and-convolution", seed=5, rank=2)
    whole = _pictures(_generate(engine, quick_request(3), [_applied(engine, body)]))[3]
    halves = [_applied(engine, body, 0.5), _applied(engine, body, 0.5)]
    _assert_equal_pictures(_pictures(_generate(engine, quick_request(3), halves))[3], whole)
    half = _pictures(_generate(engine, quick_request(3), halves[:1]))[3]
    both = _pictures(_generate(engine, quick_request(3), [_applied(engine, body), _applied(engine, other)]))[3]
    assert _far_apart(half, whole)
    assert _far_apart(both, whole)


def test_more_adapters_than_slots_take_turns_in_them(toon: BaseModelEntry, plain_pipeline: Any) -> None:
    engine = StepEngine(toon, load_base_model(toon, torch.device("cpu")), batch_size=16, slot_rank=4, slot_bytes=0)
    try:
        adapters = [_applied(engine, _adapter(plain_pipeline, "with-text-encoder", seed)) for seed in range(12)]

        async def scenario() -> list[dict[int, Pixels]]:
            async def one(seed: int) -> dict[int, Pixels]:
                request = quick_request(seed, width=32, height=32)
                return _pictures([result async for result in engine.generate(request, [adapters[seed]])])

            return await asyncio.gather(*[one(seed) for seed in range(12)])

        together = asyncio.run(scenario())
        assert len(engine.in_slots()) == MAX_ADAPTERS
        assert engine.in_slots() < {adapter.digest for adapter in adapters}
        for seed in (0, 11):
            alone = _pictures(_generate(engine, quick_request(seed, width=32, height=32), [adapters[seed]]))
            _assert_equal_pictures(together[seed][seed], alone[seed])
            assert adapters[seed].digest in engine.in_slots()
    finally:
        engine.close()


def test_closing_the_iteration_stops_within_a_step_and_the_next_request_runs(engine: StepEngine) -> None:
    async def scenario() -> list[EngineEvent]:
        async with aclosing(engine.generate(quick_request(1, steps=150), ())) as results:
            async for result in results:
                assert isinstance(result, Progress)
                if result.completed_steps == 2:
                    break
        # 150 steps would take longer than the patience of this test.
        async with asyncio.timeout(10):
            return [result async for result in engine.generate(quick_request(2), ())]

    assert list(_pictures(asyncio.run(scenario()))) == [2]


def test_a_request_that_is_given_up_computes_nothing_more_and_others_go_on(engine: StepEngine) -> None:
    async def scenario() -> None:
        running = engine.generate(quick_request(1, steps=20), ())
        await anext(running)
        other = engine.generate(quick_request(2, steps=150), ())
        await anext(other)
        await other.aclose()
        rest = [result async for result in running]
        assert list(_pictures(rest)) == [1]
        before = engine.counters.images
        assert list(_pictures([result async for result in engine.generate(quick_request(3), ())])) == [3]
        assert engine.counters.images == before + 4

    asyncio.run(scenario())


def test_an_engine_error_reaches_its_request_only(engine: StepEngine) -> None:
    broken = quick_request(1, scheduler="unheard-of")
    with pytest.raises(KeyError):
        _generate(engine, broken)
    assert list(_pictures(_generate(engine, quick_request(1)))) == [1]


def test_what_is_not_finite_fails_its_request_and_is_never_a_picture(engine: StepEngine, plain_pipeline: Any) -> None:
    """Every tensor of this adapter is finite and of an allowed norm; together with its weight they overflow."""
    tensors = safetensors.torch.load(_adapter(plain_pipeline, "all", seed=6))
    exploding = {name: tensor * (90 / tensor.norm()) for name, tensor in tensors.items()}
    adapter = _applied(engine, safetensors.torch.save(exploding), weight=2.0)

    async def scenario() -> None:
        async def broken() -> None:
            async for _ in engine.generate(quick_request(1, steps=30, guidance_scale=30.0), [adapter]):
                pass

        async def sound() -> list[EngineEvent]:
            return [result async for result in engine.generate(quick_request(2, steps=30), ())]

        failed, results = await asyncio.gather(broken(), sound(), return_exceptions=True)
        assert isinstance(failed, PreconditionUnmet)
        assert failed.reason == "NOT_FINITE"
        assert list(_pictures(results)) == [2]

    asyncio.run(scenario())


def test_base_weights_are_bit_equal_after_everything(engine: StepEngine, plain_pipeline: Any) -> None:
    for kind in KINDS:
        _generate(engine, quick_request(3), [_applied(engine, _adapter(plain_pipeline, kind, seed=8), 2.0)])
    for prefix, module in adaptable_modules(plain_pipeline).items():
        served = engine.base.adaptable[prefix].state_dict()
        assert all(torch.equal(tensor, served[name]) for name, tensor in module.state_dict().items())
