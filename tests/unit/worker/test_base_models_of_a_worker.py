"""Which base models a worker holds: one at a time, and nothing of those before it."""

import gc
import weakref
from datetime import UTC, datetime
from typing import Any

import torch

from base_models.catalog import read_allow_list
from base_models.loading import load_base_model
from tests.unit.trainer.trainer_fakes import Trainer
from trainer_service.worker.run import Workbench

CPU = torch.device("cpu")


def test_parts_that_visited_are_gone_before_the_next_base_model_comes() -> None:
    toon = read_allow_list(["toon-64"])["toon-64"]
    earlier: Any = load_base_model(toon, CPU, placement="on_request")
    with torch.no_grad():
        earlier.encode_prompts(["a"])
    parts = [weakref.ref(earlier.pipeline.components[part]) for part in ("unet", "text_encoder", "vae")]
    bench = Workbench(
        store=Trainer().store,
        base_models={"toon-64": toon},
        holder="worker",
        now=lambda: datetime.now(UTC),
        device=CPU,
        judge_for=lambda entry: None,
        bases={"earlier": earlier},
    )
    del earlier
    # The collector comes now and then; a GPU without room does not wait for it.
    gc.disable()
    try:
        bench.base(toon)
    finally:
        gc.enable()
    assert list(bench.bases) == ["toon-64"]
    assert [part() for part in parts] == [None, None, None]
