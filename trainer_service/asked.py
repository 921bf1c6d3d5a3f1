"""What callers ask: messages of the contract to this service's own types. The way back is `wire.py`.

Its one rule: a message that means nothing is refused here, by the name of its field.
"""

from typing import TypeVar

from base_models.adapters.adapter_export import KeyNames
from personae.v1 import adapter_pb2, trainer_pb2
from service_kit.adapter_manifest import ConsentEntry
from service_kit.errors import InvalidRequest, Violation, Violations
from service_kit.names import AdapterName, AdapterVersionName, MalformedName, ProjectName, parse_adapter
from trainer_service.enum_words import word
from trainer_service.import_request import ImportChunk, ImportHeader, ImportPart
from trainer_service.training_request import TrainingRequest
from trainer_service.upload import Chunk, Header, ImageStart, Part

N = TypeVar("N")

_KEY_NAMES: dict[int, KeyNames] = {
    adapter_pb2.ADAPTER_FORMAT_DIFFUSERS: "diffusers",
    adapter_pb2.ADAPTER_FORMAT_KOHYA: "kohya",
}


def parsed(parse: "type[N]", text: str, field: str) -> N:
    """Parse a resource name of a request. Raises InvalidRequest that names the field."""
    try:
        return parse.parse(text)  # type: ignore[attr-defined,no-any-return]
    except MalformedName as error:
        raise InvalidRequest([Violation(field, str(error))]) from None


def adapter_name(text: str, field: str) -> AdapterName | AdapterVersionName:
    """The adapter, or version of one, that a request names. Raises InvalidRequest."""
    try:
        return parse_adapter(text)
    except MalformedName as error:
        raise InvalidRequest([Violation(field, str(error))]) from None


def adapters_parent(text: str, field: str) -> ProjectName | AdapterName:
    """What a listing of adapters is asked of. Raises InvalidRequest."""
    return parsed(AdapterName if "/adapters/" in text else ProjectName, text, field)


def upload_part(message: trainer_pb2.UploadImagesRequest) -> Part:
    """A message of an upload stream. Raises InvalidRequest for an empty one."""
    match message.WhichOneof("part"):
        case "header":
            return Header(message.header.dataset)
        case "image":
            return ImageStart(message.image.filename, message.image.size_bytes, message.image.caption)
        case "chunk":
            return Chunk(message.chunk)
    raise InvalidRequest([Violation("part", "found none; allowed is header, image or chunk")])


def consent(message: trainer_pb2.CreateDatasetRequest | trainer_pb2.ImportAdapterRequest.Header) -> ConsentEntry | None:
    """The consent that came with a request; None where none did."""
    if not message.HasField("consent"):
        return None
    said = message.consent
    return ConsentEntry(given_by=said.given_by, purpose=said.purpose, evidence=said.evidence)


def training_request(message: trainer_pb2.CreateTrainingRequest) -> TrainingRequest:
    """What the caller asks for; fields that are not set stay out of `config`."""
    training, given, unknown = message.training, {}, []
    for field, value in training.config.ListFields():
        if field.enum_type is None:
            given[field.name] = tuple(value) if field.is_repeated else value
        elif value in field.enum_type.values_by_number and value != 0:
            given[field.name] = word(field.enum_type, value)
        elif value != 0:
            unknown.append((f"training.config.{field.name}", value))
    return TrainingRequest(
        parent=message.parent,
        dataset=training.dataset,
        adapter_id=training.adapter_id,
        base_model=training.base_model,
        trigger_word=training.trigger_word,
        class_noun=training.class_noun,
        config=given,
        request_id=message.request_id,
        validate_only=message.validate_only,
        new_version=message.new_version,
        unknown_enums=tuple(unknown),
        licence=training.licence,
    )


def export_request(message: trainer_pb2.ExportAdapterRequest) -> tuple[AdapterName | AdapterVersionName, KeyNames]:
    """What to export, and with which key names. Raises InvalidRequest for both fields at once."""
    violations, key_names = Violations(), _KEY_NAMES.get(message.format)
    formats = "ADAPTER_FORMAT_DIFFUSERS (1) or ADAPTER_FORMAT_KOHYA (2)"
    violations.check(key_names is not None, "format", message.format, formats)
    try:
        name = parse_adapter(message.name)
    except MalformedName as error:
        violations.add("name", str(error))
    violations.raise_if_any()
    assert key_names is not None
    return name, key_names


def import_part(message: trainer_pb2.ImportAdapterRequest) -> ImportPart:
    """A message of an import stream. Raises InvalidRequest for an empty one."""
    match message.WhichOneof("part"):
        case "header":
            header = message.header
            return ImportHeader(
                parent=header.parent,
                adapter_id=header.adapter_id,
                base_model=header.base_model,
                trigger_word=header.trigger_word,
                new_version=header.new_version,
                request_id=header.request_id,
                class_noun=header.class_noun,
                licence=header.licence,
                consent=consent(header),
            )
        case "chunk":
            return ImportChunk(message.chunk)
    raise InvalidRequest([Violation("part", "found none; allowed is header or chunk")])
