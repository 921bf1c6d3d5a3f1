"""Whether bytes on a disk are those that an S3 ETag stands for.

Its one rule: an ETag can prove that they are, never that they are not. It is the MD5 of an object, or of the MD5s of
the parts that it was uploaded in, whose size nobody notes; where a store encrypts, it may be neither.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

_MIB = 1024**2
# What programs that upload cut files into: 8 the AWS CLI, 16 MinIO's, 5 the least that S3 takes, powers of two others.
_USUAL_PARTS_MIB = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 500, 512, 1024, 2048, 4096, 5120)
_PARTS = re.compile(r"[0-9a-f]{32}-([1-9][0-9]*)")
_READ_BYTES = _MIB


def proves(etag: str, path: Path) -> bool:
    """Whether the ETag is one that an object with the bytes of this file would have. Reads the file."""
    match = _PARTS.fullmatch(etag)
    if match is None:
        return _md5_of_parts(path, path.stat().st_size or 1)[0].hex() == etag
    size_bytes, count = path.stat().st_size, int(match[1])
    for part_bytes in (mib * _MIB for mib in _USUAL_PARTS_MIB):
        if -(-size_bytes // part_bytes) == count:
            whole = hashlib.md5(b"".join(_md5_of_parts(path, part_bytes)), usedforsecurity=False)
            if f"{whole.hexdigest()}-{count}" == etag:
                return True
    return False


def _md5_of_parts(path: Path, part_bytes: int) -> list[bytes]:
    """Of each part in order; of an empty file that of its one empty part."""
    with path.open("rb") as file:
        hashes = []
        while True:
            hashed = hashlib.md5(usedforsecurity=False)
            for body in _blocks(file.read, part_bytes):
                hashed.update(body)
            hashes.append(hashed.digest())
            if file.tell() >= path.stat().st_size:
                return hashes


def _blocks(read: Callable[[int], bytes], count: int) -> Iterator[bytes]:
    while count and (body := read(min(count, _READ_BYTES))):
        count -= len(body)
        yield body
