"""The header of a safetensors file (https://github.com/huggingface/safetensors#format), by our own rules. No torch.

Its one rule: it says where tensors lie and nothing else; what it says must describe every byte of the file once.
"""

import json
import math
import mmap
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

MAX_HEADER_BYTES = 4 * 1024 * 1024
_MAX_DIMENSIONS = 8
_MAX_SIZE = 2**40
_ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}


class NotSafetensors(Exception):
    """The bytes are no safetensors file; the text says why."""


class Readable(Protocol):
    """Bytes, or a file mapped into memory."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: slice, /) -> bytes: ...


@dataclass(frozen=True)
class TensorPlace:
    """A tensor's dtype in the format's words, its shape, and where its bytes lie, counted from the file's begin."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(body: Readable) -> dict[str, TensorPlace]:
    """The tensors of a file, by name. Raises NotSafetensors.

    As the format asks, tensors lie without holes and without overlaps up to the end. Names that come twice, of which
    libraries would take the last, are refused.
    """
    if len(body) < 8:
        raise NotSafetensors(f"{len(body)} bytes are no safetensors file")
    (length,) = struct.unpack("<Q", body[:8])
    if length > min(MAX_HEADER_BYTES, len(body) - 8):
        raise NotSafetensors(f"its header claims {length} bytes; allowed are {MAX_HEADER_BYTES} within the file")
    try:
        header = json.loads(body[8 : 8 + length], object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise NotSafetensors("its header is not that of a safetensors file") from error
    if not isinstance(header, dict):
        raise NotSafetensors("its header is not that of a safetensors file")
    header.pop("__metadata__", None)
    tensors = {name: _place(name, entry, 8 + length) for name, entry in header.items()}
    _check_coverage(tensors, 8 + length, len(body))
    return tensors


def file_header(path: Path) -> dict[str, TensorPlace]:
    """As `read_header`, of a file. Raises NotSafetensors, OSError, and ValueError where it is empty."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
        return read_header(body)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise NotSafetensors(f"its header has {twice[:120]!r} twice")
    return found


def _place(name: str, entry: Any, data_start: int) -> TensorPlace:
    if not name.isprintable():
        # Errors repeat it, and halves of surrogate pairs do not travel.
        raise NotSafetensors(f"its header names a tensor {name[:80]!r}; allowed are printable characters")
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [first, last]} if dtype in _ITEM_BYTES:
            sizes = [*shape, first, last]
            # bool is a kind of int. Bounds, since products of unbounded numbers take unbounded time.
            if len(shape) <= _MAX_DIMENSIONS and all(type(size) is int and 0 <= size <= _MAX_SIZE for size in sizes):
                found, wanted = last - first, math.prod(shape) * _ITEM_BYTES[dtype]
                if found != wanted:
                    raise NotSafetensors(f"{name[:120]!r}: its offsets hold {found} bytes; its shape needs {wanted}")
                return TensorPlace(dtype, tuple(shape), data_start + first, data_start + last)
    raise NotSafetensors(f"its header does not say what {name[:120]!r} is: dtype, shape and data_offsets")


def _check_coverage(tensors: Mapping[str, TensorPlace], start: int, end: int) -> None:
    position = start
    for name, place in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if place.start != position:
            raise NotSafetensors(
                f"{name[:120]!r}: its bytes begin at offset {place.start - start}; allowed is {position - start}, "
                "where those before it end"
            )
        position = place.stop
    if position != end:
        raise NotSafetensors(f"holds {end - start} bytes behind its header, which describes {position - start}")
