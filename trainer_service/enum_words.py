"""The words that this service uses for the contract's enum values: `ADAPTER_TYPE_DORA` is `dora`."""

from google.protobuf.descriptor import EnumDescriptor


def word(enum: EnumDescriptor, number: int) -> str:
    """Our word for a value that the contract names."""
    name: str = enum.values_by_number[number].name
    return name.removeprefix(_prefix(enum)).lower()


def number(enum: EnumDescriptor, word: str) -> int:
    """The value for one of our words."""
    found: int = enum.values_by_name[_prefix(enum) + word.upper()].number
    return found


def _prefix(enum: EnumDescriptor) -> str:
    name: str = enum.values_by_number[0].name
    return name.removesuffix("UNSPECIFIED")
