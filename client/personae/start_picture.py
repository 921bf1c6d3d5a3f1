"""The picture that images start from, as a caller hands it over, for the wire. Files are read here, once."""

import io
from pathlib import Path

from PIL import Image

from personae.errors import InvalidRequest, Violation
from personae.pictures import Source
from personae.v1 import inference_pb2

MAX_BYTES = 3 * 1024 * 1024
"""The contract's limit for picture and mask together."""


def start_picture(
    start: Source | None, strength: float | None, mask: Source | None
) -> inference_pb2.StartPicture | None:
    """A start for the wire; None where there is none. Raises InvalidRequest with everything that cannot be sent."""
    violations: list[Violation] = []
    if start is None:
        for field, value in (("strength", strength), ("mask", mask)):
            if value is not None:
                violations.append(Violation(field, "found one without a start; give the picture to start from as well"))
        if violations:
            raise InvalidRequest(violations)
        return None
    message = inference_pb2.StartPicture(strength=strength)
    if isinstance(start, str) and start.startswith("projects/"):
        message.image = start
    else:
        message.content = _file("start", start, violations)
    if mask is not None:
        message.mask = _file("mask", mask, violations)
        if not message.mask and not violations:
            # The server would take an empty mask for none.
            violations.append(Violation("mask", "found an empty file; allowed is PNG"))
    size_bytes = len(message.content) + len(message.mask)
    if size_bytes > MAX_BYTES:
        found = f"found {size_bytes} bytes of picture and mask; allowed are {MAX_BYTES} together: scale them down"
        violations.append(Violation("start", found))
    if violations:
        raise InvalidRequest(violations)
    return message


def _file(field: str, source: Source, violations: list[Violation]) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, Image.Image):
        file = io.BytesIO()
        source.save(file, "PNG")
        return file.getvalue()
    path = Path(source)
    if not path.is_file():
        violations.append(Violation(field, f"{path} is not a file"))
        return b""
    return path.read_bytes()
