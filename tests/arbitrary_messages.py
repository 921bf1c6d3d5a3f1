"""Protobuf messages of any type, built from its descriptor: what a caller may send that the wire accepts."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

_MAX_DEPTH = 5
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}
_TRICKY_TEXTS = ("", " ", "\0", "../x", "/abs", "a//b", "%2e%2e", "a\nb", "http://x/y", "x" * 1025, "\U0001f4a9" * 300)
_TRICKY_BYTES = (b"", b"\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


def messages(descriptor: Descriptor, texts: Sequence[str], depth: int = 0) -> st.SearchStrategy[Message]:
    """Messages of a type. texts: names of what exists, which strings are often, so that more than names is tested."""

    @st.composite
    def built(draw: Any) -> Message:
        message = GetMessageClass(descriptor)()
        # Most fields are absent in most messages; of a oneof, what is set last wins.
        fields = [field for field in descriptor.fields if depth < _MAX_DEPTH or not field.message_type]
        for field in draw(st.lists(st.sampled_from(fields), unique=True)) if fields else []:
            _set(draw, message, field, texts, depth)
        return message

    return built()


def _set(draw: Any, message: Message, field: FieldDescriptor, texts: Sequence[str], depth: int) -> None:
    if field.message_type and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
        for name, item in draw(st.dictionaries(_values(key, texts), _values(value, texts), max_size=3)).items():
            getattr(message, field.name)[name] = item
    elif field.message_type:
        strategy = messages(field.message_type, texts, depth + 1)
        if field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(strategy, max_size=3)))
        else:
            target = getattr(message, field.name)
            target.CopyFrom(draw(strategy))
            # Also where nothing in it is set.
            target.SetInParent()
    elif field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(_values(field, texts), max_size=4)))
    else:
        setattr(message, field.name, draw(_values(field, texts)))


def _values(field: FieldDescriptor, texts: Sequence[str]) -> st.SearchStrategy[Any]:
    """Of a field that is no message; for a repeated one, of its items."""
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=64) | st.sampled_from(_TRICKY_BYTES)
        case FieldDescriptor.CPPTYPE_STRING:
            return (
                st.sampled_from(texts) | st.sampled_from(texts) | st.sampled_from(_TRICKY_TEXTS) | st.text(max_size=40)
            )
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_FLOAT:
            return st.floats(width=32)
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return st.floats()
        case FieldDescriptor.CPPTYPE_ENUM:
            known = st.sampled_from([value.number for value in field.enum_type.values])
            return known | st.integers(*_INTEGERS[field.cpp_type])
        case _:
            return st.integers(0, 10) | st.integers(*_INTEGERS[field.cpp_type])
