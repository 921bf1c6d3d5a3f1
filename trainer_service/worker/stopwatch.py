"""Takes the times of a training, so that the next one on the same base model can be estimated.

Its one rule: it only looks at clocks; a training that nobody timed is a training all the same.
"""

import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer_service.estimating import Speed, cost_of_an_example
from trainer_service.training_record import TrainingRecord

# With fewer steps, or no pictures drawn, the figures would be of the warming up.
_LEAST_STEPS = 10


class Stopwatch:
    """One training's times, from its lease to its end."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._began_s = time.monotonic()
        self._before_s = 0.0
        self._steps_s: list[float] = []
        self._ended_steps_s = self._began_s
        self._images, self._images_s = 0, 0.0
        self._loaded_bytes = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def base_loaded(self) -> None:
        """The base model is in memory."""
        self._loaded_bytes = torch.cuda.memory_allocated(self._device) if self._device.type == "cuda" else _resident()

    def steps_begin(self) -> None:
        """Everything is prepared."""
        self._before_s = time.monotonic() - self._began_s

    def step_took(self, seconds: float) -> None:
        """One optimizer step is finished."""
        self._steps_s.append(seconds)
        self._ended_steps_s = time.monotonic()

    @contextmanager
    def drawing(self, images: int) -> Iterator[None]:
        """So many pictures are drawn while the context lasts."""
        began_s = time.monotonic()
        yield
        self._images += images
        self._images_s += time.monotonic() - began_s
        self._ended_steps_s = time.monotonic()

    def speed(self, record: TrainingRecord) -> Speed | None:
        """What was measured, at the end; None where it was too little."""
        config = record.config
        if len(self._steps_s) < _LEAST_STEPS or not self._images:
            return None
        examples = config.batch_size * config.gradient_accumulation * (2 if config.prior_weight else 1)
        a_step_s = sum(self._steps_s) / len(self._steps_s)
        cuda = self._device.type == "cuda"
        return Speed(
            hardware=_hardware(self._device),
            training=str(record.name),
            seconds_before=self._before_s,
            seconds_per_example=a_step_s / examples / cost_of_an_example(config),
            seconds_per_image=self._images_s / self._images,
            seconds_after=time.monotonic() - self._ended_steps_s,
            resolution=config.resolution,
            batch_size=config.batch_size,
            loaded_bytes=self._loaded_bytes,
            peak_bytes=torch.cuda.max_memory_allocated(self._device) if cuda else _peak_resident(),
        )


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _peak_resident() -> int:
    # In kilobytes on Linux.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} thread(s) of a {platform.machine()} CPU"
