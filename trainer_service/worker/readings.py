"""Numbers that the device computes, read when they have come and not before: progress never makes a GPU wait."""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """What is known of a finished step."""

    step: int
    loss: float
    finite: bool


class Readings:
    """Readings on their way from the device, in order of their steps."""

    def __init__(self) -> None:
        self._coming: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def add(self, step: int, loss: Tensor, finite: Tensor) -> None:
        """Send for two scalars of a step."""
        values = torch.stack((loss.detach().float(), finite.float()))
        event = None
        if values.device.type == "cuda":
            values = torch.empty(2, pin_memory=True).copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._coming.append((step, values, event))

    def arrived(self, through: int = 0) -> list[Reading]:
        """Those that have come and were not given before; waits for those of steps up to `through`."""
        found = []
        while self._coming:
            step, values, event = self._coming[0]
            if event is not None and step <= through:
                event.synchronize()
            elif event is not None and not event.query():
                break
            self._coming.popleft()
            loss, finite = values.tolist()
            found.append(Reading(step, loss, bool(finite)))
        return found
