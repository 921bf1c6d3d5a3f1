"""Pages of a listing (AIP-158): ids in order, continued after the last id of the page before."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from service_kit.document import UnreadableDocument
from service_kit.errors import ResourceMissing, Violations
from service_kit.names import MalformedName, check_id
from service_kit.store import ObjectStore

_logger = logging.getLogger(__name__)

_DEFAULT_SIZE = 50
_MAX_SIZE = 1000

Name = TypeVar("Name")
Found = TypeVar("Found")


@dataclass(frozen=True)
class PageRequest:
    """What the caller asked for; `size` 0 means the default, `token` is empty for the first page."""

    size: int
    token: str


@dataclass(frozen=True)
class Page:
    """The ids of a page and the token of the next, empty on the last."""

    ids: list[str]
    next_token: str


def page_of_ids(store: ObjectStore, prefix: str, request: PageRequest) -> Page:
    """A page of the folders directly below `prefix`, by their ids. Raises InvalidRequest."""
    violations = Violations()
    violations.check(0 <= request.size <= _MAX_SIZE, "page_size", request.size, f"0 to {_MAX_SIZE:,}")
    if request.token:
        try:
            check_id(request.token)
        except MalformedName:
            violations.add("page_token", "not a token that an earlier page gave")
    violations.raise_if_any()
    after = f"{prefix}{request.token}/" if request.token else ""
    ids = _ids(store, prefix, after)
    size = request.size or _DEFAULT_SIZE
    page = [found for _, found in zip(range(size), ids, strict=False)]
    more = len(page) == size and next(ids, None) is not None
    return Page(page, page[-1] if more else "")


def readable(names: Iterable[Name], read: Callable[[Name], Found]) -> list[Found]:
    """What lies under the names of a page, but for what is missing, deleted or still being made, or cannot be read.

    One damaged document must not keep the caller from all the others; asked for by its name it is DATA_LOSS.
    """
    found = []
    for name in names:
        try:
            found.append(read(name))
        except ResourceMissing:
            continue
        except UnreadableDocument as error:
            _logger.error("%s is left out of a list: %s", name, error)
    return found


def _ids(store: ObjectStore, prefix: str, after: str) -> Iterator[str]:
    for folder in store.folders(prefix, after):
        yield folder.removeprefix(prefix).rstrip("/")
