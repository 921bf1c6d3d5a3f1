"""A file of an adapter -> a file on this machine, whole and proven, or not at all.

A cut download goes on where it broke; the bytes get their name only once their SHA-256 is the announced one.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

from personae import wire
from personae.errors import Corrupted, PersonaeError, ServerDefect, Unavailable
from personae.patience import Outage, Patience
from personae.resources import Artifact
from personae.stream import Stream
from personae.v1 import trainer_pb2


class Download(Stream[bytes]):
    """The bytes of an artifact, in order."""

    rpc: ClassVar[str] = "ReadArtifact"

    def __init__(self, adapter: str, artifact_id: str, patience: Patience) -> None:
        super().__init__(Outage(patience.unanswered_s, patience.first_pause_s), silence_s=patience.silence_s)
        self.adapter = adapter
        """Its name; once something has come, with the version it came from."""
        self._artifact_id = artifact_id
        self._patience = patience
        self._artifact: Artifact | None = None
        self._received = 0

    @property
    def complete(self) -> bool:
        """Whether as many bytes have come as were announced."""
        return self._artifact is not None and self._received >= self._artifact.size_bytes

    @property
    def artifact(self) -> Artifact:
        """What the server announced; known once the download is complete."""
        assert self._artifact is not None
        return self._artifact

    def request(self) -> trainer_pb2.ReadArtifactRequest:
        """Asks for the bytes after those received."""
        return trainer_pb2.ReadArtifactRequest(
            adapter=self.adapter, artifact_id=self._artifact_id, read_offset=self._received
        )

    def take(self, message: trainer_pb2.ReadArtifactResponse) -> bytes | None:
        """The next bytes, where the message has any."""
        part = message.WhichOneof("part")
        if part == "header" and self._artifact is None:
            self._artifact = wire.artifact(message.header.artifact)
            # From here on this very version, also where "the latest" was asked for and a newer one is born.
            self.adapter = message.header.adapter
            self.outage = Outage(self._patience.outage_s, self._patience.first_pause_s)
        elif part == "chunk":
            self.outage.over()
            self._received += len(message.chunk)
            return message.chunk
        return None

    def ended_early(self) -> PersonaeError:
        """The rest can be asked for, unless nobody said what it is the rest of."""
        if self._artifact is None:
            return ServerDefect(f"the server sent no header for {self._artifact_id or 'the file'} of {self.adapter}")
        return Unavailable("the server ended the stream before the file was complete")


def place(adapter: str, path: Path, suffix: str) -> Path:
    """Where a file of an adapter version is to lie: `path`, or in that folder as `{adapter}-{version}{suffix}`."""
    _, _, _, adapter_id, _, version = adapter.split("/")
    return path / f"{adapter_id}-{version}{suffix}" if path.is_dir() else path


class PartFile:
    """A file that has no name of its own yet, beside where it will lie. `path`: the file to be, or a folder for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = (path if path.is_dir() else path.parent) / f".personae-{uuid4().hex}.part"
        self._file = self._part.open("xb")
        self._hashed = hashlib.sha256()
        self._size_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        self._file.write(chunk)
        self._hashed.update(chunk)
        self._size_bytes += len(chunk)

    def finish(self, download: Download) -> Path:
        """Give it its name, and return that. Raises Corrupted where size or hash are not the announced ones."""
        self._file.close()
        artifact = download.artifact
        if self._size_bytes != artifact.size_bytes or self._hashed.hexdigest() != artifact.digest:
            raise Corrupted(
                f"{artifact.artifact_id} of {download.adapter}: received {self._size_bytes} bytes with SHA-256 "
                f"{self._hashed.hexdigest()}; announced were {artifact.size_bytes} with {artifact.digest}"
            )
        # The artifact's name comes from the server: only its last part may choose a place.
        path = self._path
        return self._part.replace(path / Path(artifact.artifact_id).name if path.is_dir() else path)

    def discard(self) -> None:
        """Leave nothing behind, unless it has its name."""
        self._file.close()
        self._part.unlink(missing_ok=True)


def saved(download: Download, chunks: Iterable[bytes], path: Path) -> Path:
    """Write what comes to `path`, or into the folder `path`, and return where it lies. Raises Corrupted."""
    file = PartFile(path)
    try:
        for chunk in chunks:
            file.write(chunk)
        return file.finish(download)
    finally:
        file.discard()
