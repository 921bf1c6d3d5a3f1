"""Parts of a base model that lie in host memory and visit the device while they compute: text encoders, autoencoder.

Its one rule: what visits goes by being forgotten. Host memory keeps the weights, which nobody writes, so leaving copies
nothing. Any thread may use any part; where there is room for one, others wait for the forward pass that runs.
"""

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor


class VisitingParts:
    """The parts by name. one_at_a_time: who comes has others leave first; otherwise they stay until `make_room`."""

    def __init__(self, parts: Mapping[str, torch.nn.Module], device: torch.device, one_at_a_time: bool) -> None:
        self._device = device
        self._one_at_a_time = one_at_a_time
        self._parts = dict(parts)
        self._at_home = {
            name: {id(tensor): tensor.data for tensor in _tensors(part)} for name, part in self._parts.items()
        }
        self._present: set[str] = set()
        # One and the same thread may need two at once.
        self._lock = threading.RLock()
        self._used: list[str] = []
        for name, part in self._parts.items():
            part.forward = self._coming(name, part.forward)

    @property
    def present(self) -> frozenset[str]:
        """Which are on the device."""
        return frozenset(self._present)

    @contextmanager
    def used(self, *names: str) -> Iterator[None]:
        """Have parts on the device for as long as the context lasts, whatever of them is called. Those that do not
        visit are there always."""
        with ExitStack() as stack:
            for name in names:
                if name in self._parts:
                    self._enter(name)
                    stack.callback(self._leave)
            yield

    def make_room(self) -> None:
        """Have all leave that are not being used."""
        with self._lock:
            for name in self._present - set(self._used):
                self._go(name)

    def _coming(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def come(*args: Any, **kwargs: Any) -> Any:
            with self.used(name):
                return forward(*args, **kwargs)

        return come

    def _enter(self, name: str) -> None:
        self._lock.acquire()
        self._used.append(name)
        try:
            if self._one_at_a_time:
                self.make_room()
            if name not in self._present:
                self._come(name)
        except BaseException:
            # For example where the device has no room: those that came already go again.
            self._go(name)
            self._leave()
            raise

    def _leave(self) -> None:
        self._used.pop()
        self._lock.release()

    def _come(self, name: str) -> None:
        # What inference mode makes could not be used outside of it.
        with torch.inference_mode(False), torch.no_grad():
            for tensor in _tensors(self._parts[name]):
                # A copy also where the device is the CPU, so that a test there sees who is present.
                tensor.data = tensor.data.to(self._device, copy=True)
        self._present.add(name)

    def _go(self, name: str) -> None:
        home = self._at_home[name]
        for tensor in _tensors(self._parts[name]):
            # What an adapter put there has no other place.
            tensor.data = home[id(tensor)] if id(tensor) in home else tensor.data.cpu()
        self._present.discard(name)


def _tensors(part: torch.nn.Module) -> list[Tensor]:
    return [*part.parameters(), *part.buffers()]
