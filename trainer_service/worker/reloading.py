"""The base model wearing an adapter's file, read back by the rules by which inference reads it.

Its one rule: the base model carries no adapter before and none afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from base_models.adapters.adapter_file import read_adapter
from base_models.adapters.worn_adapters import put_on, take_off, wear
from base_models.family import BaseModel

_NAME = "reloaded"


@contextmanager
def reloaded(base: BaseModel, body: bytes) -> Iterator[None]:
    """Put an adapter file on the base model for as long as the context lasts. Raises AdapterInvalid."""
    tensors = read_adapter(body, base.adaptable)
    try:
        put_on(base.adaptable, tensors, _NAME, is_exact=True)
        wear(base.adaptable, {_NAME: 1.0})
        yield
    finally:
        take_off(base.adaptable)
