"""Takes the times of a training, so that the next one on the same base model can be estimated.

Its one rule: it only looks at clocks; a training that nobody timed is a training all the same.
"""

import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from base_models.catalog import BaseModelEntry
from base_models.network_sizes import read_network_sizes
from trainer_service.estimating import Speed, cost_of_an_example
from trainer_service.training_memory import Device, training_memory
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
        self._ran_out = False
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def memory_ran_out(self) -> None:
        """All that there was, was held, so what would have been enough was not measured."""
        self._ran_out = True

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

    def speed(self, record: TrainingRecord, entry: BaseModelEntry, pictures: int) -> Speed | None:
        """What was measured, at the end; None where it was too little. pictures: that it learned from."""
        config = record.config
        if len(self._steps_s) < _LEAST_STEPS or not self._images:
            return None
        examples = config.batch_size * config.gradient_accumulation * (2 if config.prior_weight else 1)
        a_step_s = sum(self._steps_s) / len(self._steps_s)
        device = device_of(self._device)
        recomputes = config.gradient_checkpointing == "always"
        computed = training_memory(config, entry, read_network_sizes(entry), device.kind, pictures, recomputes)
        return Speed(
            hardware=_hardware(self._device),
            training=str(record.name),
            seconds_before=self._before_s,
            seconds_per_example=a_step_s / examples / cost_of_an_example(config),
            seconds_per_image=self._images_s / self._images,
            seconds_after=time.monotonic() - self._ended_steps_s,
            resolution=config.resolution,
            peak_bytes=_peak_bytes(self._device),
            computed_bytes=0 if self._ran_out or entry.activations is None else computed.measurable(device.kind),
            device=device,
        )


def device_of(device: torch.device) -> Device:
    """What estimates have to know of a worker's device."""
    if device.type != "cuda":
        return Device(kind="cpu")
    return Device(kind="cuda", memory_bytes=torch.cuda.get_device_properties(device).total_memory)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # In kilobytes on Linux.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} thread(s) of a {platform.machine()} CPU"
