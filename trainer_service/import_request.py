"""What a caller may ask of ImportAdapter, and the grammar of its stream: a header, then the file in chunks. Pure.

Its one rule: a header is checked whole before the first byte of the file is taken.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from base_models.catalog import BaseModelEntry
from service_kit.adapter_manifest import ConsentEntry
from service_kit.errors import InvalidRequest, PreconditionUnmet, Violation, Violations
from service_kit.names import AdapterName, MalformedName, ProjectName, check_id
from trainer_service.consent import check_consent
from trainer_service.request_id import check_request_id
from trainer_service.training_request import (
    DEFAULT_TRIGGER_WORD,
    check_class_noun,
    check_licence,
    check_trigger_word,
)
from trainer_service.upload import MAX_CHUNK_BYTES

MAX_FILE_BYTES = 1024 * 1024 * 1024


@dataclass(frozen=True)
class ImportHeader:
    """The first message, as it came; empty text means: choose for me."""

    parent: str
    adapter_id: str
    base_model: str
    trigger_word: str
    new_version: bool
    request_id: str
    class_noun: str
    licence: str
    consent: ConsentEntry | None


@dataclass(frozen=True)
class ImportChunk:
    """The next bytes of the file."""

    body: bytes


ImportPart = ImportHeader | ImportChunk


@dataclass(frozen=True)
class CheckedImport:
    """The header, parsed and with names resolved."""

    adapter: AdapterName
    entry: BaseModelEntry
    trigger_word: str
    class_noun: str
    new_version: bool
    request_id: str
    licence: str
    consent: ConsentEntry | None

    def digest(self, file_digest: str) -> str:
        """Equal for imports that ask for the same. file_digest: SHA-256 (hex) of the file."""
        asked = [
            str(self.adapter),
            self.entry.name,
            self.trigger_word,
            self.class_noun,
            self.new_version,
            self.licence,
            self.consent and self.consent.model_dump(),
            file_digest,
        ]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def check_import(header: ImportHeader, allowed: Mapping[str, BaseModelEntry]) -> CheckedImport:
    """Check a header against the allow-list. Raises InvalidRequest with every violation."""
    violations = Violations()
    check_request_id(header.request_id, violations, "header.request_id")
    project = ProjectName("")
    try:
        project = ProjectName.parse(header.parent)
    except MalformedName as error:
        violations.add("header.parent", str(error))
    try:
        check_id(header.adapter_id)
    except MalformedName as error:
        violations.add("header.adapter_id", str(error))
    entry = allowed.get(header.base_model)
    if entry is None:
        violations.check(False, "header.base_model", header.base_model, " or ".join(allowed))
    trigger_word = header.trigger_word or DEFAULT_TRIGGER_WORD
    check_trigger_word(trigger_word, "header.trigger_word", violations)
    class_noun = header.class_noun or (entry.class_noun if entry else "")
    check_class_noun(class_noun, "header.class_noun", violations)
    check_licence(header.licence, "header.licence", violations)
    check_consent(header.consent, "header.consent", violations)
    violations.raise_if_any()
    assert entry is not None  # noted as a violation above
    return CheckedImport(
        AdapterName(project.project, header.adapter_id),
        entry,
        trigger_word,
        class_noun,
        header.new_version,
        header.request_id,
        header.licence,
        header.consent,
    )


class ImportStream:
    """The state of one stream. Feed it every part, then call `finish`. max_bytes: of the file."""

    def __init__(self, allowed: Mapping[str, BaseModelEntry], max_bytes: int = MAX_FILE_BYTES) -> None:
        self.checked: CheckedImport | None = None
        """What is asked for, once the header has come."""
        self._allowed = allowed
        self._max_bytes = max_bytes
        self._received = 0

    def feed(self, part: ImportPart) -> bytes:
        """Take the next part; return the bytes of the file that it brings. Raises InvalidRequest, PreconditionUnmet."""
        if isinstance(part, ImportHeader):
            if self.checked is not None:
                raise _out_of_order("header", "found a second header; allowed is one")
            self.checked = check_import(part, self._allowed)
            return b""
        if self.checked is None:
            raise _out_of_order("header", "found chunk first; the first message must be header")
        if len(part.body) > MAX_CHUNK_BYTES:
            raise _out_of_order("chunk", f"found {len(part.body):,} bytes; allowed are {MAX_CHUNK_BYTES:,}")
        self._received += len(part.body)
        if self._received > self._max_bytes:
            raise invalid_file(self.checked.adapter, f"has more than {self._max_bytes:,} bytes, which are allowed")
        return part.body

    def finish(self) -> CheckedImport:
        """What is asked for, after a stream that ended where it may. Raises InvalidRequest."""
        if self.checked is None:
            raise _out_of_order("header", "the stream is empty; the first message must be header")
        return self.checked


def invalid_file(adapter: AdapterName, why: str) -> PreconditionUnmet:
    """The error of a file that is no LoRA for the base model."""
    return PreconditionUnmet("ADAPTER_INVALID", str(adapter), f"the file for {adapter} is not usable: {why}")


def _out_of_order(field: str, description: str) -> InvalidRequest:
    return InvalidRequest([Violation(field, description)])
