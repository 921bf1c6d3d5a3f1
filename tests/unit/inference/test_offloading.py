"""The engine on a base model whose weights do not all lie on the device: the same pictures, to the bit."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from base_models.catalog import BaseModelEntry
from base_models.loading import load_base_model
from base_models.weights.placement import OffloadName
from inference_service.__main__ import offload_of
from inference_service.denoising.step_engine import StepEngine
from inference_service.settings import InferenceSettings
from tests.random_adapter import ALL, TEXT_ATTENTION, random_adapter
from tests.unit.inference.engine_calls import applied, generated, pictures_of
from tests.unit.inference.quick_requests import quick_request

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use here"),
    ),
]
OFFLOADS: tuple[OffloadName, ...] = ("model", "group")


@pytest.fixture(scope="module")
def bodies(tiny_sdxl: BaseModelEntry) -> list[bytes]:
    """An adapter of everything; a DoRA of everything, which reads the weights that it changes."""
    modules = load_base_model(tiny_sdxl, torch.device("cpu")).adaptable
    targets = {"unet": ALL, "text_encoder": TEXT_ATTENTION, "text_encoder_2": TEXT_ATTENTION}
    return [random_adapter(modules, targets, seed, is_dora=is_dora) for seed, is_dora in ((1, False), (2, True))]


@pytest.fixture(params=DEVICES, scope="module")
def draw(
    tiny_sdxl: BaseModelEntry, bodies: list[bytes], request: pytest.FixtureRequest
) -> Iterator[Callable[[OffloadName], list[Any]]]:
    """Draws without an adapter, with each, and from another prompt, by an engine that is placed so."""
    engines = []

    def drawn(offload: OffloadName) -> list[Any]:
        device = torch.device(request.param)
        base = load_base_model(tiny_sdxl, device, torch.float32, None if offload == "none" else offload)
        engine = StepEngine(tiny_sdxl, base, batch_size=2, slot_rank=4, slot_bytes=0)
        engines.append(engine)
        asked = quick_request(3, 4, scheduler="euler", steps=2)
        return [
            pictures_of(generated(engine, asked, [applied(engine, body) for body in worn]))[seed]
            for worn in ([], bodies[:1], bodies[1:], [])
            for seed in (3, 4)
        ]

    yield drawn
    for engine in engines:
        engine.close()


def test_the_same_pictures_whereever_the_weights_lie(draw: Callable[[OffloadName], list[Any]]) -> None:
    wanted = draw("none")
    assert not np.array_equal(wanted[0], wanted[2])
    for offload in OFFLOADS:
        for found_HWC, wanted_HWC in zip(draw(offload), wanted, strict=True):
            assert np.array_equal(found_HWC, wanted_HWC)


def test_what_only_visits_is_not_held(tiny_sdxl: BaseModelEntry) -> None:
    base: Any = load_base_model(tiny_sdxl, torch.device("cpu"), torch.float32, "model")
    assert base.visiting.present == set()
    base.encode_prompts(["a"])
    assert base.visiting.present == {"text_encoder_2"}
    base.decode_latents(torch.zeros(1, 4, 8, 8))
    assert base.visiting.present == {"vae"}
    with torch.no_grad():
        base.generate(["a"], [0], 64)
    assert base.visiting.present == {"vae"}


@pytest.mark.parametrize(
    ("asked", "free", "chosen"),
    [("automatic", 2**40, "none"), ("automatic", 2**30, "group"), ("none", 0, "none"), ("model", 2**40, "model")],
)
def test_an_operator_may_choose(tiny_sdxl: BaseModelEntry, asked: Any, free: int, chosen: str) -> None:
    settings = InferenceSettings(inference_offload=asked)
    assert offload_of(tiny_sdxl, settings, 4, free) == chosen
