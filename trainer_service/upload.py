"""The grammar of an upload stream: header, then pictures, each announced and then sent in chunks. Pure.

Its one rule: a picture is handed on only when exactly the announced bytes have come.
"""

from dataclasses import dataclass, field

from service_kit.errors import InvalidRequest, Violation, Violations
from service_kit.names import DatasetName, MalformedName
from trainer_service.dataset_record import MAX_IMAGES

MAX_IMAGE_BYTES = 50 * 1024 * 1024
MAX_CHUNK_BYTES = 1024 * 1024
MAX_CAPTION_CHARACTERS = 1000
MAX_FILENAME_CHARACTERS = 255


@dataclass(frozen=True)
class Header:
    """First message: where the pictures go."""

    dataset: str


@dataclass(frozen=True)
class ImageStart:
    """Announces a picture of exactly `size_bytes`."""

    filename: str
    size_bytes: int
    caption: str


@dataclass(frozen=True)
class Chunk:
    """The next bytes of the picture announced last."""

    body: bytes


@dataclass(frozen=True)
class UploadedImage:
    """A picture whose bytes have all come."""

    filename: str
    caption: str
    body: bytes


Part = Header | ImageStart | Chunk


@dataclass
class Upload:
    """The state of one stream. Feed it every part, then call `finish`."""

    dataset: DatasetName | None = None
    _image: ImageStart | None = None
    _received: bytearray = field(default_factory=bytearray)
    _images: int = 0

    def feed(self, part: Part) -> UploadedImage | None:
        """Take the next part; return a picture when it is complete. Raises InvalidRequest."""
        if isinstance(part, Header):
            self._start(part)
            return None
        if self.dataset is None:
            raise _out_of_order("header", f"found {_kind(part)} first; the first message must be header")
        if isinstance(part, ImageStart):
            self._announce(part)
            return None
        return self._receive(part)

    def finish(self) -> DatasetName:
        """The dataset, after a stream that ended where it may. Raises InvalidRequest."""
        if self.dataset is None:
            raise _out_of_order("header", "the stream is empty; the first message must be header")
        if self._image is not None:
            raise _out_of_order(
                "chunk",
                f"{self._image.filename}: found {len(self._received):,} of {self._image.size_bytes:,} bytes announced",
            )
        return self.dataset

    def _start(self, header: Header) -> None:
        if self.dataset is not None:
            raise _out_of_order("header", "found a second header; allowed is one")
        try:
            self.dataset = DatasetName.parse(header.dataset)
        except MalformedName as error:
            raise _out_of_order("header.dataset", str(error)) from None

    def _announce(self, start: ImageStart) -> None:
        if self._image is not None:
            raise _out_of_order(
                "image",
                f"found a new picture after {len(self._received):,} of {self._image.size_bytes:,} bytes of the last",
            )
        self._images += 1
        violations = Violations()
        violations.check(self._images <= MAX_IMAGES, "image", self._images, f"at most {MAX_IMAGES:,} pictures")
        violations.check(
            1 <= start.size_bytes <= MAX_IMAGE_BYTES, "image.size_bytes", start.size_bytes, f"1 to {MAX_IMAGE_BYTES:,}"
        )
        violations.check(
            1 <= len(start.filename) <= MAX_FILENAME_CHARACTERS and start.filename.isprintable(),
            "image.filename",
            start.filename[:80],
            f"1 to {MAX_FILENAME_CHARACTERS} printable characters",
        )
        if "://" in start.filename:
            violations.add("image.filename", "found a URL; URLs are not fetched, send the picture's bytes")
        violations.check(
            len(start.caption) <= MAX_CAPTION_CHARACTERS and "\0" not in start.caption,
            "image.caption",
            f"{len(start.caption)} characters",
            f"at most {MAX_CAPTION_CHARACTERS:,} characters, without NUL",
        )
        violations.raise_if_any()
        self._image = start

    def _receive(self, chunk: Chunk) -> UploadedImage | None:
        if self._image is None:
            raise _out_of_order("chunk", "found a chunk that belongs to no picture; announce one with image first")
        if len(chunk.body) > MAX_CHUNK_BYTES:
            raise _out_of_order("chunk", f"found {len(chunk.body):,} bytes; allowed are {MAX_CHUNK_BYTES:,}")
        if len(self._received) + len(chunk.body) > self._image.size_bytes:
            raise _out_of_order(
                "chunk",
                f"{self._image.filename}: found more than the {self._image.size_bytes:,} bytes that were announced",
            )
        self._received += chunk.body
        if len(self._received) < self._image.size_bytes:
            return None
        complete = UploadedImage(self._image.filename, self._image.caption, bytes(self._received))
        self._image, self._received = None, bytearray()
        return complete


def _kind(part: Part) -> str:
    return {Header: "header", ImageStart: "image", Chunk: "chunk"}[type(part)]


def _out_of_order(field: str, description: str) -> InvalidRequest:
    return InvalidRequest([Violation(field, description)])
