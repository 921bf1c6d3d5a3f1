"""A file of an adapter -> a file on this machine, whole and proven, or not at all.

A cut download goes on where it broke; the bytes get their name only once their SHA-256 is the announced one.
"""

import hashlib
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from personae import wire
from personae.connection import Connection, read
from personae.errors import Corrupted, ServerDefect, Unavailable
from personae.resources import Artifact
from personae.v1 import trainer_pb2
from personae.v1.trainer_pb2_grpc import TrainerServiceStub


def download(connection: Connection[TrainerServiceStub], adapter: str, artifact_id: str, path: Path) -> Path:
    """Write the artifact to `path`, or under its own name into the folder `path`. Returns where it lies.

    Raises Corrupted where size or hash are not the announced ones; then nothing is left behind.
    """
    part = (path if path.is_dir() else path.parent) / f".personae-{uuid4().hex}.part"
    try:
        with part.open("xb") as file:
            artifact = _receive(connection, adapter, artifact_id, file)
        # The artifact's name comes from the server: only its last part may choose a place.
        return part.replace(path / Path(artifact.artifact_id).name if path.is_dir() else path)
    finally:
        part.unlink(missing_ok=True)


def _receive(connection: Connection[TrainerServiceStub], adapter: str, artifact_id: str, file: BinaryIO) -> Artifact:
    patience = connection.patience
    outage = connection.outage(patience.unanswered_s)
    artifact: Artifact | None = None
    hashed = hashlib.sha256()
    received = 0
    while True:
        request = trainer_pb2.ReadArtifactRequest(adapter=adapter, artifact_id=artifact_id, read_offset=received)
        try:
            for answer in read(connection.stub.ReadArtifact(request), patience.silence_s):
                if answer.WhichOneof("part") == "header" and artifact is None:
                    artifact = wire.artifact(answer.header.artifact)
                    # From here on this very version, also where "the latest" was asked for and a newer one is born.
                    adapter = answer.header.adapter
                    outage = connection.outage(patience.outage_s)
                elif answer.WhichOneof("part") == "chunk":
                    outage.over()
                    file.write(answer.chunk)
                    hashed.update(answer.chunk)
                    received += len(answer.chunk)
            if artifact is None:
                raise ServerDefect(f"the server sent no header for {artifact_id or 'the file'} of {adapter}")
            if received < artifact.size_bytes:
                raise Unavailable("the server ended the stream before the file was complete")
            break
        except Unavailable as cut:
            outage.wait(cut)
    if received != artifact.size_bytes or hashed.hexdigest() != artifact.digest:
        raise Corrupted(
            f"{artifact.artifact_id} of {adapter}: received {received} bytes with SHA-256 {hashed.hexdigest()}; "
            f"announced were {artifact.size_bytes} with {artifact.digest}"
        )
    return artifact
