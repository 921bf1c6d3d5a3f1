"""How many bytes tensors hold at the worst moment: what an allocator would be asked for, without asking one.

Its one rule: storages that were there before are not counted. Works on real tensors and on those that hold no memory
(`FakeTensorMode`), forward and backward, since it sees every operation below autograd.
"""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Used as a context. `peak`: the most bytes at once of storages that operations in it made; `now`: what is left."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        # Strong references would keep alive what is to be seen dying; a storage's Python object lives as long as it.
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {id(storage) for storage in _storages((args, kwargs))}
        answer = func(*args, **(kwargs or {}))
        for storage in _storages(answer):
            # Views and what is changed in place are of storages that were given.
            if id(storage) not in given and storage not in self._known:
                self._note(storage)
        return answer

    def _note(self, storage: Any) -> None:
        size: int = storage.nbytes()
        self._known.add(storage)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.now -= size


def _storages(tree: Any) -> list[Any]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
