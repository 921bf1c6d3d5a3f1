"""Where weights are to lie: from the bytes that headers tell and those that a device has free."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from base_models.adapters.adapter_export import StoredTensor, write_safetensors
from base_models.catalog import BaseModelEntry, read_allow_list
from base_models.weights.placement import choose_offload, weight_bytes
from base_models.weights.quantisation import QUANTISED_SUFFIX

GIB = 1024**3
ITEM_BYTES = {"F32": 4, "F16": 2, "F8_E4M3": 1, "I64": 8}
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
    """A folder that holds more than its pipeline has: what is loaded without, and what it says it lacks."""
    bundled = read_allow_list(["toon-64"])["toon-64"]
    index = {"text_encoder": [None, None], "scheduler": ["diffusers", "DDIMScheduler"]}
    for part, tensors in {
        "unet": {
            "weight": of("F32", 4, 3),
            "narrow.weight": of("F8_E4M3", 2, 3),
            f"packed{QUANTISED_SUFFIX}": of("F8_E4M3", 6, 3),
            "ids": of("I64", 5),
        },
        "vae": {"weight": of("F16", 2, 2)},
        "safety_checker": {"weight": of("F32", 100, 100)},
        "text_encoder": {"weight": of("F32", 100, 100)},
    }.items():
        (tmp_path / part).mkdir()
        (tmp_path / part / "model.safetensors").write_bytes(write_safetensors(tensors, {}))
        index.setdefault(part, ["diffusers", "Any"])
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    return replace(bundled, folder=tmp_path)


def of(dtype: str, *shape: int) -> StoredTensor:
    return StoredTensor(dtype, shape, bytes(ITEM_BYTES[dtype] * math.prod(shape)))


def unet(item: int) -> int:
    """Packed weights and whole numbers take what they take in the file."""
    return (4 * 3 + 2 * 3) * item + 6 * 3 + 5 * 8


@pytest.mark.parametrize("item", [2, 4])
def test_numbers_take_what_they_are_loaded_as_and_the_autoencoders_four_bytes(entry: BaseModelEntry, item: int) -> None:
    # What the pipeline is loaded without takes nothing, and neither does what the folder says is not there.
    assert "safety_checker" in entry.traits.without
    assert weight_bytes(entry, item) == {"unet": unet(item), "vae": 2 * 2 * 4}


def test_all_else_of_a_quantised_model_is_held_in_sixteen_bits_whatever_is_asked(entry: BaseModelEntry) -> None:
    quantised = replace(entry, is_quantised=True)
    assert weight_bytes(quantised, 4) == weight_bytes(entry, 2)
