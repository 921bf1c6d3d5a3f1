"""Whatever bytes come as an adapter file: what reads them and what imports them say AdapterInvalid, or they fit.

Deterministic: the same examples every time, and none are kept.
"""

import math
import time
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from base_models.adapters.adapter_file import read_adapter
from base_models.adapters.adapter_import import import_adapter
from base_models.adapters.adapter_rules import AdapterInvalid
from tests.lora_files import bare, file

SD = "StableDiffusionPipeline"
# No example may take longer, on whatever machine; most take a millisecond.
BOUNDED = settings(max_examples=300, derandomize=True, database=None, deadline=timedelta(seconds=10))


class _Layers(nn.Module):
    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


MODULES = {
    "unet": _Layers(linear=nn.Linear(6, 4), conv=nn.Conv2d(3, 5, 3)),
    "text_encoder": _Layers(fc=nn.Linear(8, 8)),
}
SHAPES = {"unet.linear": (4, 6), "unet.conv": (5, 3, 3, 3), "text_encoder.fc": (8, 8)}
OWN = {
    "unet.linear.lora_A.weight": np.ones((2, 6), np.float32),
    "unet.linear.lora_B.weight": np.ones((4, 2), np.float32),
    "unet.conv.lora_A.weight": np.ones((2, 3, 3, 3), np.float32),
    "unet.conv.lora_B.weight": np.ones((5, 2, 1, 1), np.float32),
}
KOHYA = {
    "lora_unet_linear.lora_down.weight": np.ones((2, 6), np.float16),
    "lora_unet_linear.lora_up.weight": np.ones((4, 2), np.float16),
    "lora_unet_linear.alpha": np.array(1, np.float16),
    "lora_te_fc.lora_down.weight": np.ones((1, 8), np.float16),
    "lora_te_fc.lora_up.weight": np.ones((8, 1), np.float16),
}
FILES = [file(OWN), file(KOHYA, {"lora_adapter_metadata": "{}"})]


def judge(body: bytes) -> bool:
    """Whether it was taken as a file to import; anything but AdapterInvalid escapes, and fails the test."""
    try:
        for tensor in read_adapter(body, MODULES).values():
            assert tensor.isfinite().all()
    except AdapterInvalid as refusal:
        _check_text(refusal)
    try:
        imported = import_adapter(body, SHAPES, SD)
    except AdapterInvalid as refusal:
        _check_text(refusal)
        return False
    # What is taken in is what is served later.
    tensors = read_adapter(imported.body, MODULES)
    assert imported.rank == max(tensor.shape[0] for name, tensor in tensors.items() if "lora_A" in name)
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    return True


def _check_text(refusal: AdapterInvalid) -> None:
    """It is short, and goes into a message."""
    assert len(str(refusal)) < 500
    assert str(refusal).encode()


def test_the_files_that_are_changed_here_are_good_ones() -> None:
    assert [judge(body) for body in FILES] == [True, True]


@BOUNDED
@given(st.binary(max_size=400))
def test_random_bytes(body: bytes) -> None:
    assert not judge(body)


@BOUNDED
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_files_with_some_bytes_changed(body: bytes, changes: list[tuple[float, int]]) -> None:
    changed = bytearray(body)
    for place, byte in changes:
        changed[int(place * len(changed))] = byte
    judge(bytes(changed))


@BOUNDED
@given(st.sampled_from(FILES), st.floats(0, 1), st.binary(max_size=20), st.floats(0, 1))
def test_files_with_a_piece_cut_out_and_others_put_in(body: bytes, start: float, put_in: bytes, stop: float) -> None:
    first, last = sorted((int(start * len(body)), int(stop * len(body))))
    changed = body[:first] + put_in + body[last:]
    taken = judge(changed)
    # What is put in may be what was there, or a value in a tensor; without it, something is missing.
    assert put_in or taken == (changed == body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([*OWN, *KOHYA, "__metadata__", "lora_unet_linear.hada_w1_a"]) | st.text(max_size=30)
SIZES = st.sampled_from([0, 1, 2, 4, 6, 8, 48, -1, 2**31, 2**63, 2**64]) | st.integers(0, 100)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "F64", "BOOL", "F8_E4M3", "x"]),
        "shape": st.lists(SIZES, max_size=5),
        "data_offsets": st.lists(SIZES, min_size=2, max_size=2),
    }
)


@BOUNDED
@given(
    st.dictionaries(NAMES | st.just("\ud800.lora_A.weight"), ENTRIES | JSON, max_size=5) | JSON, st.binary(max_size=64)
)
def test_headers_that_say_anything(header: Any, data: bytes) -> None:
    judge(bare(header, data))


@BOUNDED
@given(st.data())
def test_tensors_of_any_name_shape_and_value(data: st.DataObject) -> None:
    values = st.sampled_from([0.0, 1.0, -1e-30, 1e30, math.nan, math.inf, -math.inf, 6e4])
    tensors = dict(data.draw(st.sampled_from([OWN, KOHYA])))
    for name in data.draw(st.lists(NAMES.filter(lambda name: name != "__metadata__"), max_size=3)):
        shape = data.draw(st.sampled_from([tensors[name].shape] if name in tensors else [(), (2, 6), (4, 2), (1, 8)]))
        dtype = data.draw(st.sampled_from([np.float32, np.float16, np.float64, np.int64]))
        with np.errstate(all="ignore"):
            tensors[name] = np.full(shape, data.draw(values)).astype(dtype)
    for name in data.draw(st.lists(st.sampled_from(sorted(tensors)), max_size=2)):
        tensors.pop(name, None)
    judge(file(tensors))


@BOUNDED
@given(st.floats(min_value=2**-10, max_value=2**10), st.integers(1, 8))
def test_any_alpha_is_folded_in(alpha: float, rank: int) -> None:
    a, b = np.ones((rank, 6), np.float32), np.full((4, rank), 1 / 64, np.float32)
    kohya = {"lora_unet_linear.lora_down.weight": a, "lora_unet_linear.lora_up.weight": b}
    kohya["lora_unet_linear.alpha"] = np.array(alpha, np.float32)
    tensors = read_adapter(import_adapter(file(kohya), SHAPES, SD).body, MODULES)
    wanted = np.float64(np.float32(alpha)) / rank * (b.astype(np.float64) @ a)
    found = tensors["unet.linear.lora_B.weight"].double() @ tensors["unet.linear.lora_A.weight"].double()
    assert np.allclose(found, wanted, rtol=1e-5)


def test_a_header_of_very_many_names_is_refused_in_time() -> None:
    names = b",".join(b'"a%d":1' % index for index in range(200_000))
    began_s = time.monotonic()
    assert not judge(bare(b"{" + names + b',"a199999":1}'))
    # Half a second; looking for each name among all of them would take minutes.
    assert time.monotonic() - began_s < 30
