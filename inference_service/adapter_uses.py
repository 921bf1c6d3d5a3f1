"""Which adapter versions were used since the process started, in order: what there is to tell about its caches.

Its one rule: files are named by hash, so only what was asked for by name since the start has a name here.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from inference_service.host_adapters import HostKey
from service_kit.names import AdapterName, AdapterVersionName

# A name and a few numbers each.
_MAX_USES = 4096


@dataclass(frozen=True)
class AdapterUse:
    """The last use of an adapter version. `number` counts uses from 1, so a later one's is higher."""

    name: AdapterVersionName
    key: HostKey
    host_bytes: int
    file_bytes: int
    number: int
    time: datetime


class AdapterUses:
    """The most recently used versions. Used on the event loop only."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._count = 0
        # The longest unused first.
        self._uses: OrderedDict[AdapterVersionName, AdapterUse] = OrderedDict()

    def note(self, name: AdapterVersionName, key: HostKey, host_bytes: int, file_bytes: int) -> AdapterUse:
        """A request uses this version, or it is preloaded."""
        self._count += 1
        use = AdapterUse(name, key, host_bytes, file_bytes, self._count, self._now())
        self._uses[name] = use
        self._uses.move_to_end(name)
        if len(self._uses) > _MAX_USES:
            self._uses.popitem(last=False)
        return use

    def before(self, number: int | None) -> Iterator[AdapterUse]:
        """Uses with a lower number, or all, the latest first."""
        return (use for use in reversed(tuple(self._uses.values())) if number is None or use.number < number)

    def forget(self, name: AdapterName | AdapterVersionName) -> list[HostKey]:
        """Forget a version, or all of an adapter; returns the keys of those that no other version shares."""
        gone = [use for use in self._uses.values() if name in (use.name, use.name.adapter_name)]
        for use in gone:
            del self._uses[use.name]
        shared = {use.key for use in self._uses.values()} if gone else set()
        return [use.key for use in gone if use.key not in shared]
