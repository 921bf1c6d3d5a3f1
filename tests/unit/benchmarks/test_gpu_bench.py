"""What the benches of a GPU say without one: the operations that count, and when 16 bits are the same picture."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from base_models.catalog import BaseModelEntry, describe
from base_models.loading import load_base_model
from tests.benchmarks.counted_flop import counted_flop
from tests.benchmarks.printing import printing_to
from tests.benchmarks.serving_contestants import Contestant
from tests.benchmarks.serving_engines.counters import Counted
from tests.benchmarks.serving_equality import Pixels, assert_close, to_compare
from tests.benchmarks.serving_load import Kind
from tests.benchmarks.serving_turns import Asked
from tests.families.flux import write_tiny_flux

REQUESTS = to_compare([Kind("any", 8, 8, 1)])


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> BaseModelEntry:
    folder = tmp_path_factory.mktemp("flux")
    write_tiny_flux(folder)
    return describe("flux", folder)


def test_what_is_counted_is_the_denoiser_of_one_picture(flux: BaseModelEntry) -> None:
    base = load_base_model(flux, torch.device("cpu"))
    small, large = (counted_flop(base, side, 4, base.lora_modules("attention")) for side in (64, 128))
    # 512 tokens of text and 16 or 64 patches: what grows with each, and what grows with all pairs.
    assert 1.09 < large.forward / small.forward < (576 / 528) ** 2
    # Forward, and back through all activations; of the weights' gradients, those of the few that learn.
    assert 2 < small.training / small.forward < 3
    wide = counted_flop(base, 64, 64, base.lora_modules("attention"))
    assert wide.forward == small.forward
    assert wide.training > small.training


def _drawing(pictures: list[Pixels]) -> Contestant:
    left = iter(pictures)

    async def ask(asked: Asked) -> None:
        asked.finished_s, asked.pixels_HWC = time.perf_counter(), next(left)

    async def counted() -> Counted:
        return Counted()

    return Contestant(ask, counted)


def test_in_sixteen_bits_a_picture_may_be_off_by_less_than_an_adapter_changes() -> None:
    plain = [np.full((8, 8, 3), 20 * number, np.uint8) for number in range(len(REQUESTS))]
    near = [picture + np.uint8(4) for picture in plain]
    assert asyncio.run(assert_close({"ours": _drawing(near)}, REQUESTS, plain)) == pytest.approx(0.2)
    swapped = [plain[1], plain[0], *plain[2:]]
    with pytest.raises(AssertionError, match="ours drew another picture"):
        asyncio.run(assert_close({"ours": _drawing(swapped)}, REQUESTS, plain))


def test_what_is_printed_is_added_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("one", "two"):
        with printing_to(tmp_path / "said.md"):
            print(part)
    assert (tmp_path / "said.md").read_text() == "one\ntwo\n" == capsys.readouterr().out
