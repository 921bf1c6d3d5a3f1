"""Updates of several layers as the update of one, in whose outputs theirs stand one below the other. Imports no torch.

Its one rule: no number is computed, so what comes of it is exact in every dtype. Arrays hold numbers or their bits.

For layers W_i that are the rows of W, the updates B_i A_i are the rows of B A, with A the A_i one below the other and B
block-diagonal. Layers of one and the same A have it once, and their B_i in the same columns.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[Any]


class Update(NamedTuple):
    """Of a linear layer: A [rank, in], B [out, rank], and of a DoRA the magnitudes [out]."""

    a: _Array
    b: _Array
    magnitudes: _Array | None = None


class PartMissing(Exception):
    """The magnitudes of a layer that is not changed are those of its weights, which are not known here."""


def fuse(parts: Sequence[Update | None], widths: Sequence[int]) -> Update:
    """The update of the whole. Raises PartMissing.

    parts: in order of the whole's outputs; None is not changed: rows of zeros. At least one is there, all there are of
    one dtype. widths: of each part, its outputs in multiples of the inputs.
    """
    there = [part for part in parts if part is not None]
    magnitudes = [part.magnitudes for part in there if part.magnitudes is not None]
    if magnitudes and len(there) < len(parts):
        raise PartMissing
    inputs, dtype = there[0].a.shape[1], there[0].a.dtype
    columns: dict[bytes, slice] = {}
    kept, rank = [], 0
    for a in (part.a for part in there):
        if a.tobytes() not in columns:
            columns[a.tobytes()] = slice(rank, rank := rank + len(a))
            kept.append(a)
    rows = []
    for part, width in zip(parts, widths, strict=True):
        block = np.zeros((width * inputs if part is None else len(part.b), rank), dtype)
        if part is not None:
            block[:, columns[part.a.tobytes()]] = part.b
        rows.append(block)
    return Update(np.concatenate(kept), np.concatenate(rows), np.concatenate(magnitudes) if magnitudes else None)


def own_ranks(b: _Array, outputs: Sequence[int]) -> list[slice | None]:
    """Which ranks change each part: from the first to the last column of B [out, rank] that is not zero in its rows.

    outputs: of each part, together those of B. None: its rows are zeros.
    """
    found: list[slice | None] = []
    for rows in np.split(b, np.cumsum(outputs)[:-1]):
        used = np.flatnonzero(rows.any(axis=0))
        found.append(slice(int(used[0]), int(used[-1]) + 1) if used.size else None)
    return found
