"""The network with its slots as one graph: nothing in it depends on which adapters, steps or weights a batch has."""

from typing import Any

import pytest
import torch
import torch._dynamo
from torch._dynamo.testing import CompileCounter

from base_models.catalog import BaseModelEntry
from base_models.loading import load_base_model
from base_models.pipelines import adaptable_modules
from tests.random_adapter import ALL, random_adapter
from tests.unit.inference.quick_requests import quick_request
from tests.unit.inference.step_rows import StepRows


@pytest.mark.slow
def test_it_is_compiled_whole_and_once_for_any_adapters_steps_and_weights(
    toon: BaseModelEntry, plain_pipeline: Any
) -> None:
    base, counter = load_base_model(toon, torch.device("cpu")), CompileCounter()
    base.denoiser.compile(backend=counter, fullgraph=True, dynamic=False)
    steps = StepRows(base, slots=4)
    bodies = [random_adapter(adaptable_modules(plain_pipeline), {"unet": ALL}, seed) for seed in range(6)]
    try:
        for round_ in range(3):
            for place in range(2):
                worn = [(bodies[(2 * round_ + place) % 6], 0.5 + round_)]
                request = quick_request(
                    place, steps=2, scheduler=("ddim", "euler")[place], guidance_scale=3.0 + round_, width=32, height=32
                )
                steps.add(request, worn)
            assert len(steps.run()) == 2
        assert steps.loop.counters.forwards == 6
        assert counter.frame_count == 1
    finally:
        steps.close()
        torch._dynamo.reset()
