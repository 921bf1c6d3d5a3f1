"""Which adapters lie how close to the GPU here, and how to bring one closer before it is needed.

Its one rule: what is said is looked up in slots, memory and on the disk when it is asked for; nothing is kept in step.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Literal

from inference_service.adapter_cache import AdapterCache
from inference_service.adapter_uses import AdapterUse, AdapterUses
from inference_service.adapters import Adapters
from inference_service.host_adapters import HostAdapters
from inference_service.studio import ServedBaseModel
from service_kit.errors import InvalidRequest, PreconditionUnmet, TryLater, Violation, Violations
from service_kit.names import MalformedName, parse_adapter

Residency = Literal["disk", "host", "slot"]

_DEFAULT_PAGE_SIZE = 50
_MAX_PAGE_SIZE = 1000
_MEMORY_RETRY_S = 60.0


@dataclass(frozen=True)
class ServedAdapter:
    """An adapter version that is held here, in the place nearest to the GPU."""

    name: str
    residency: Residency
    size_bytes: int
    """What it takes there."""
    last_use_time: datetime
    pinned: bool


class ServedAdapters:
    """Used on the event loop only, which it never holds up. `served` is by name of the base model."""

    def __init__(
        self,
        served: Mapping[str, ServedBaseModel],
        adapters: Adapters,
        uses: AdapterUses,
        host: HostAdapters,
        cache: AdapterCache,
    ) -> None:
        self._served = served
        self._adapters = adapters
        self._uses = uses
        self._host = host
        self._cache = cache

    async def preload(self, name: str, pinned: bool) -> ServedAdapter:
        """Bring an adapter into host memory and have it pinned there, or not.

        Raises InvalidRequest, TryLater where memory does not take it, and what a generation with it would.
        """
        try:
            parsed = parse_adapter(name)
        except MalformedName as error:
            raise InvalidRequest([Violation("adapter", str(error))]) from None
        manifest = await self._adapters.resolve(parsed)
        base = self._served.get(manifest.base_model)
        if base is None:
            raise PreconditionUnmet(
                "BASE_MODEL_MISMATCH",
                str(manifest.name),
                f"adapter {manifest.name} was trained on {manifest.base_model}; served here are "
                f"{', '.join(self._served)}",
            )
        use, content = await self._adapters.load(manifest, base.entry.name, base.digest, base.engine)
        if pinned:
            self._host.pin(use.key, content)
        else:
            self._host.unpin(use.key)
        found = self._where(use)
        if found is None or found.residency == "disk":
            raise TryLater(
                "HOST_MEMORY_FULL",
                f"adapter {manifest.name} takes {content.size_bytes} bytes of host memory, which the server's bound "
                "and the pinned adapters do not leave; preload one of those without `pinned` first",
                _MEMORY_RETRY_S,
            )
        return found

    async def page(self, size: int, token: str) -> tuple[list[ServedAdapter], str]:
        """A page of the adapters held, the most recently used first, and the next page's token. Raises InvalidRequest.

        size: 0 means the default. token: of the page before, empty for the first.
        """
        violations = Violations()
        violations.check(0 <= size <= _MAX_PAGE_SIZE, "page_size", size, f"0 to {_MAX_PAGE_SIZE:,}")
        violations.check(
            not token or (token.isdecimal() and token.isascii() and len(token) < 20),
            "page_token",
            token,
            "a token that an earlier page gave",
        )
        violations.raise_if_any()
        uses = self._uses.before(int(token) if token else None)
        # Whether a file is on the disk takes a look at the disk.
        return await asyncio.to_thread(self._page, uses, size or _DEFAULT_PAGE_SIZE)

    def _page(self, uses: Iterable[AdapterUse], size: int) -> tuple[list[ServedAdapter], str]:
        held = ((found, use.number) for use in uses if (found := self._where(use)) is not None)
        page = list(islice(held, size))
        more = next(held, None) is not None
        return [found for found, _ in page], str(page[-1][1]) if more else ""

    def _where(self, use: AdapterUse) -> ServedAdapter | None:
        residency: Residency
        if use.key.digest in self._served[use.key.base_model].engine.in_slots():
            residency, size_bytes = "slot", use.host_bytes
        elif self._host.holds(use.key):
            residency, size_bytes = "host", use.host_bytes
        elif self._cache.holds(use.key.digest):
            residency, size_bytes = "disk", use.file_bytes
        else:
            return None
        return ServedAdapter(str(use.name), residency, size_bytes, use.time, self._host.is_pinned(use.key))
