"""Training on a base model whose frozen weights are quantised: it learns, and what is published is proven."""

from pathlib import Path
from typing import Any

import pytest
import torch

from base_models.adapters.adapter_file import write_adapter
from base_models.catalog import BaseModelEntry
from base_models.loading import load_base_model
from tests.quantised_base_model import KINDS, write_quantised
from tests.unit.worker.test_sdxl_training import config_of
from trainer_service.worker.autocast import accelerator_for, config_on
from trainer_service.worker.examples import Examples, encode, encode_empty_prompt
from trainer_service.worker.proof import AdapterNotReproduced, make_probe, prove
from trainer_service.worker.training_loop import Learned, train

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("kind", "adapter_type"),
    [
        (KINDS[0], "lora"),
        pytest.param(KINDS[0], "dora", marks=pytest.mark.slow),
        pytest.param(KINDS[1], "lora", marks=pytest.mark.slow),
    ],
)
def test_what_is_learned_on_quantised_weights_is_proven_and_leaves_them_alone(
    tiny_sdxl: BaseModelEntry, tmp_path: Path, kind: str, adapter_type: str
) -> None:
    entry = write_quantised(tiny_sdxl, tmp_path / "model", kind)
    base: Any = load_base_model(entry, CPU)
    untouched = base.denoiser.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight
    before = untouched.dequantize().clone()
    pixels = list(torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    subject = encode(base, pixels, ["a", "b", "c"], [None] * 3, lambda done, total: None)
    examples = Examples(subject, subject, encode_empty_prompt(base), None)
    config = config_on(base, config_of(entry, steps=3, rank=2, alpha=3.0, adapter_type=adapter_type))
    assert config.precision == "bfloat16"
    probe = make_probe(base, subject)
    for moment in train(base, examples, config, accelerator_for(config, CPU), None, lambda step: False):
        if isinstance(moment, Learned):
            predictions_BCHW = probe.predictions(base)
            adapter = moment.adapter
    prove(base, write_adapter(adapter, 1.5), probe, predictions_BCHW)
    with pytest.raises(AdapterNotReproduced):
        prove(base, write_adapter(adapter, 1.52), probe, predictions_BCHW)
    now = base.denoiser.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight
    assert now is untouched
    assert torch.equal(now.dequantize(), before)
