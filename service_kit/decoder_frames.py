"""What travels between a service and the child that decodes pictures for it: frames of two byte strings.

Its one rule: lengths come first and are judged before anything is read; nothing that could be code ever travels.

A frame is a kind (one byte), the lengths of its head and its body (four bytes each, big-endian), the head, the body. In
a request the head names a function and the body is the file; in an answer the head is the function's JSON and the body
the picture.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO

MAX_HEAD_BYTES = 64 * 1024
_LENGTHS = struct.Struct(">BII")


class Kind(IntEnum):
    """What a frame is."""

    READY = 0
    """The child has imported everything and is limited; empty."""
    REQUEST = 1
    ANSWER = 2
    NO_MEMORY = 3
    """The function met the memory limit; empty."""
    DEFECT = 4
    """The function raised what it should not; the head is the traceback's end."""


class BadFrame(Exception):
    """The other side is gone, or sent what is no frame within the bounds."""


@dataclass(frozen=True)
class Frame:
    """See the module."""

    kind: Kind
    head: bytes = b""
    body: bytes = b""


def write_frame(file: BinaryIO, frame: Frame) -> None:
    """Send a frame. Raises OSError where the other side is gone."""
    file.write(_LENGTHS.pack(frame.kind, len(frame.head), len(frame.body)))
    file.write(frame.head)
    file.write(frame.body)
    file.flush()


def read_frame(file: BinaryIO, max_body_bytes: int) -> Frame:
    """The next frame. Raises BadFrame."""
    number, head_bytes, body_bytes = _LENGTHS.unpack(_exactly(file, _LENGTHS.size))
    try:
        kind = Kind(number)
    except ValueError as error:
        raise BadFrame(str(error)) from None
    if head_bytes > MAX_HEAD_BYTES or body_bytes > max_body_bytes:
        raise BadFrame(f"found {head_bytes:,} and {body_bytes:,} bytes; allowed are {max_body_bytes:,}")
    return Frame(kind, _exactly(file, head_bytes), _exactly(file, body_bytes))


def _exactly(file: BinaryIO, size_bytes: int) -> bytes:
    found = file.read(size_bytes)
    if len(found) != size_bytes:
        raise BadFrame("the pipe is closed")
    return found
