"""A store to which something else happens right before a chosen write: how two that do not know of each other meet."""

from collections.abc import Callable

from service_kit.memory_store import MemoryStore


class InterruptedStore(MemoryStore):
    """One process's view of `behind`: before its write for which `when` is true, `happens`, once.

    when: of the keys written so far, the present one last.
    """

    def __init__(self, behind: MemoryStore, when: Callable[[list[str]], bool], happens: Callable[[], object]) -> None:
        super().__init__()
        self._objects = behind._objects
        self._lock = behind._lock
        self._when = when
        self._happens = happens
        self.writes: list[str] = []
        self.has_happened = False

    def put(self, key: str, body: bytes) -> None:
        self._note(key)
        super().put(key, body)

    def create(self, key: str, body: bytes) -> str:
        self._note(key)
        return super().create(key, body)

    def replace(self, key: str, body: bytes, etag: str) -> str:
        self._note(key)
        return super().replace(key, body, etag)

    def _note(self, key: str) -> None:
        self.writes.append(key)
        if not self.has_happened and self._when(self.writes):
            self.has_happened = True
            self._happens()
