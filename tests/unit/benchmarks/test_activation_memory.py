"""What is counted without memory is what a real step of the bundled model takes from torch's own allocator."""

from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from base_models.catalog import describe, read_allow_list
from base_models.loading import load_base_model
from tests.benchmarks.activation_memory import count_step
from tests.benchmarks.published_shapes import PUBLISHED
from tests.benchmarks.weightless import weightless
from trainer_service.training_config import decide
from trainer_service.worker.autocast import accelerator_for
from trainer_service.worker.trainee import Trainee

CPU, META = torch.device("cpu"), torch.device("meta")
TOON = read_allow_list(["toon-64"])["toon-64"]
CONFIG = decide({"optimizer": "prodigy", "precision": "float32", "rank": 16}, TOON, 1, 16, "a")


@pytest.mark.slow
def test_what_is_counted_is_what_the_allocator_gives(tmp_path: Path) -> None:
    PUBLISHED["toon-64"](tmp_path / "toon-64")
    base = weightless(describe("toon-64", tmp_path / "toon-64"), torch.float32)
    real = load_base_model(TOON, CPU)
    accelerator = accelerator_for(CONFIG, CPU)
    with Trainee(base, CONFIG, accelerator) as counted, Trainee(real, CONFIG, accelerator) as allocated:
        kept = count_step(base, CONFIG, 4, 64, None, META), _allocated(real)
        counted.checkpoint_gradients()
        allocated.checkpoint_gradients()
        recomputed = count_step(base, CONFIG, 4, 64, None, META), _allocated(real)
    print(f"bytes counted, and allocated: {kept}, {recomputed}")
    for found, given in (kept, recomputed):
        assert 0.85 < found / given < 1.15
    assert recomputed[0] < 0.6 * kept[0]


def _allocated(base) -> int:  # type: ignore[no-untyped-def]
    """The most bytes beyond those at the begin, by what torch's CPU allocator reports."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        count_step(base, CONFIG, 4, 64, None, CPU)
    now = peak = 0
    for event in profiled.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak
