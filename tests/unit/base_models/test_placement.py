"""Where weights are to lie: from the bytes that headers tell and those that a device has free."""

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.numpy
from numpy import zeros

from base_models.catalog import BaseModelEntry, read_allow_list
from base_models.placement import choose_offload, weight_bytes

GIB = 1024**3
FLUX = {"transformer": 22 * GIB, "text_encoder": GIB // 4, "text_encoder_2": 9 * GIB, "vae": GIB // 2}


@pytest.mark.parametrize(
    ("free", "chosen"), [(140, "none"), (37, "none"), (36, "model"), (36.5, "model"), (35, "group"), (8, "group")]
)
def test_the_fastest_that_fits_is_chosen(free: float, chosen: str) -> None:
    # 31.75 GiB of weights, 4 to compute in, 1 for adapters; with one other part at a time, 31 of weights.
    assert choose_offload(FLUX, "transformer", int(free * GIB), GIB) == chosen


def test_what_adapters_will_take_counts() -> None:
    assert choose_offload(FLUX, "transformer", 37 * GIB, 2 * GIB) == "model"


@pytest.fixture
def entry(tmp_path: Path) -> BaseModelEntry:
    bundled = read_allow_list(["toon-64"])["toon-64"]
    for part, tensors in {
        "unet": {"weight": zeros((4, 3), "float32"), "ids": zeros(5, "int64")},
        "vae": {"weight": zeros((2, 2), "float16")},
        "safety_checker": {"weight": zeros((100, 100), "float32")},
    }.items():
        (tmp_path / part).mkdir()
        safetensors.numpy.save_file(tensors, tmp_path / part / "model.safetensors")
    return replace(bundled, folder=tmp_path)


@pytest.mark.parametrize(("item", "unet"), [(2, 4 * 3 * 2 + 5 * 8), (4, 4 * 3 * 4 + 5 * 8)])
def test_numbers_take_what_they_are_loaded_as_and_the_autoencoders_four_bytes(
    entry: BaseModelEntry, item: int, unet: int
) -> None:
    # What the pipeline is loaded without takes nothing.
    assert "safety_checker" in entry.traits.without
    assert weight_bytes(entry, item) == {"unet": unet, "vae": 2 * 2 * 4}
