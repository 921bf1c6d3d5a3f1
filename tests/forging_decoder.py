"""`python -m tests.forging_decoder`: a decoder that was taken over, and answers what the file tells it to."""

import struct

from service_kit.decoder_child import Function, serve_pictures

_LENGTH = struct.Struct(">I")


def forged(head: bytes, body: bytes) -> bytes:
    """A file that has the decoder answer this."""
    return _LENGTH.pack(len(head)) + head + body


def _forge(file: bytes) -> tuple[bytes, bytes]:
    (head_bytes,) = _LENGTH.unpack_from(file)
    start = _LENGTH.size + head_bytes
    return file[_LENGTH.size : start], file[start:]


_FUNCTIONS: dict[str, Function] = dict.fromkeys(("examine", "examine_mask", "picture", "mask"), _forge)

if __name__ == "__main__":
    serve_pictures(_FUNCTIONS, [])
