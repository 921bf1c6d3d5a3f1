"""Updates of several layers as the update of one, and which of its ranks are whose. No torch."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base_models.adapters.fused_layers import PartMissing, Update, fuse, own_ranks

INPUTS = 3


def part(width: int, rank: int, seed: int) -> Update:
    """Of whole numbers, none of them zero, so that products are exact."""
    dice = np.random.default_rng(seed)
    a, b = dice.integers(1, 99, (rank, INPUTS)), dice.integers(1, 99, (width * INPUTS, rank))
    return Update(a.astype("<u4"), b.astype("<u4"))


@st.composite
def wholes(draw: Any) -> tuple[list[Update | None], list[int]]:
    """Parts of one layer: of any widths and ranks, some missing, some with the A of another."""
    widths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    ranks = [draw(st.integers(0, 4)) for _ in widths]
    seeds = [draw(st.integers(0, 2)) for _ in widths]
    ranks[draw(st.integers(0, len(ranks) - 1))] = 2
    parts: list[Update | None] = []
    for number, (width, rank, seed) in enumerate(zip(widths, ranks, seeds, strict=True)):
        own = part(width, rank, number)
        # Equal seeds and ranks make an equal A.
        parts.append(own._replace(a=part(1, rank, 100 + seed).a) if rank else None)
    return parts, widths


@given(wholes())
@settings(deadline=None)
def test_the_whole_changes_each_parts_outputs_as_the_part_does(whole: tuple[list[Update | None], list[int]]) -> None:
    parts, widths = whole
    fused = fuse(parts, widths)
    rows = np.split(fused.b.astype(int) @ fused.a.astype(int), np.cumsum([width * INPUTS for width in widths])[:-1])
    for found, own in zip(rows, parts, strict=True):
        assert np.array_equal(found, 0 * found if own is None else own.b.astype(int) @ own.a.astype(int))


@given(wholes())
@settings(deadline=None)
def test_each_part_finds_its_own_ranks_again(whole: tuple[list[Update | None], list[int]]) -> None:
    parts, widths = whole
    fused = fuse(parts, widths)
    outputs = [width * INPUTS for width in widths]
    for rows, ranks, own in zip(
        np.split(fused.b, np.cumsum(outputs)[:-1]), own_ranks(fused.b, outputs), parts, strict=True
    ):
        if own is None:
            assert ranks is None
        else:
            assert ranks is not None
            assert np.array_equal(fused.a[ranks], own.a)
            assert np.array_equal(rows[:, ranks], own.b)


def test_parts_with_one_a_have_it_once() -> None:
    first, second, third = part(1, 2, 0), part(1, 2, 1), part(1, 2, 2)
    fused = fuse([first, second._replace(a=first.a), third], (1, 1, 1))
    assert fused.a.shape == (4, INPUTS)
    assert own_ranks(fused.b, [INPUTS] * 3) == [slice(0, 2), slice(0, 2), slice(2, 4)]


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_bits_stay_what_they_are(dtype: str) -> None:
    """Those of a NaN with a payload, of the smallest number there is, and of minus zero among others."""
    every = np.array([[0x7FA1, 1], [0x8000, 0xFFFF]], dtype)
    fused = fuse([Update(every, every), None, Update(every[::-1], every)], (1, 1, 1))
    assert fused.b.dtype == dtype
    assert np.array_equal(fused.a, np.concatenate([every, every[::-1]]))
    assert np.array_equal(fused.b[:2, :2], every)
    assert np.array_equal(fused.b[4:, 2:], every)
    assert not fused.b[:2, 2:].any()
    assert not fused.b[2:4].any()


def test_magnitudes_are_wanted_of_every_part() -> None:
    first, second = (part(1, 2, seed)._replace(magnitudes=np.full(INPUTS, seed, "<u4")) for seed in (0, 1))
    magnitudes = fuse([first, second], (1, 1)).magnitudes
    assert magnitudes is not None
    assert magnitudes.tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(PartMissing):
        fuse([first, None], (1, 1))
