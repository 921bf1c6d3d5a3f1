"""What `import_adapter` may be asked for, and the upload that it is. Nothing is sent here."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, TypedDict
from uuid import uuid4

from personae import wire
from personae.calls import Upload
from personae.requests import CHUNK_BYTES, parent
from personae.resources import Adapter, Consent
from personae.v1 import dataset_pb2, trainer_pb2


class ImportOptions(TypedDict, total=False):
    """Keyword arguments of `import_adapter`. What is not there is the server's own choice, or unknown."""

    trigger_word: str
    """The word that calls the subject."""
    class_noun: str
    """What the subject is."""
    licence: str
    """Under what licence the adapter may be used."""
    consent: Consent | None
    """Who gave the right to learn from the pictures behind it; the server may require it."""
    new_version: bool
    """Make the next version where the adapter exists, instead of raising AlreadyExists."""


def import_adapter(
    project: str, file: str | Path | bytes, name: str, base_model: str, options: ImportOptions
) -> Upload[Adapter]:
    """Makes an adapter of a LoRA file, given by its path or its bytes. Every try sends it from the beginning.

    Raises TypeError for options that there are not.
    """
    if unknown := options.keys() - ImportOptions.__annotations__.keys():
        raise TypeError(f"import_adapter() got unexpected keyword arguments: {', '.join(sorted(unknown))}")
    consent = options.get("consent")
    header = trainer_pb2.ImportAdapterRequest.Header(
        parent=parent(project),
        adapter_id=name,
        base_model=base_model,
        trigger_word=options.get("trigger_word", ""),
        new_version=options.get("new_version", False),
        request_id=str(uuid4()),
        class_noun=options.get("class_noun", ""),
        licence=options.get("licence", ""),
        consent=dataset_pb2.Consent(**asdict(consent)) if consent else None,
    )
    return Upload("ImportAdapter", lambda: _messages(header, file), lambda answer: wire.adapter(answer.adapter))


def _messages(
    header: trainer_pb2.ImportAdapterRequest.Header, file: str | Path | bytes
) -> Iterator[trainer_pb2.ImportAdapterRequest]:
    """The header, then the file in chunks; a file on disk is never wholly in memory. Raises OSError."""
    if isinstance(file, bytes):
        yield trainer_pb2.ImportAdapterRequest(header=header)
        for start in range(0, len(file), CHUNK_BYTES):
            yield trainer_pb2.ImportAdapterRequest(chunk=file[start : start + CHUNK_BYTES])
        return
    with Path(file).open("rb") as opened:
        yield trainer_pb2.ImportAdapterRequest(header=header)
        yield from _chunks(opened)


def _chunks(opened: IO[bytes]) -> Iterator[trainer_pb2.ImportAdapterRequest]:
    while chunk := opened.read(CHUNK_BYTES):
        yield trainer_pb2.ImportAdapterRequest(chunk=chunk)
