"""Engines over a plain diffusers pipeline that run batches from their first step to their last: what is competed with.

Its one rule: what shares a batch is one function of the images that wait, and nothing else differs among the baselines.
Whatever can share a batch with the image that has waited longest does, up to a number, so none starves and none waits
for a batch to fill.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.utils import logging as diffusers_logging

from base_models.adapters.adapter_file import read_adapter
from base_models.catalog import BaseModelEntry
from base_models.pipelines import adaptable_modules, load_pipeline, without_weights
from base_models.traits.family_traits import SchedulerName
from inference_service.engine import AppliedAdapter, HostAdapter, Picture
from inference_service.events import Progress
from inference_service.generation import GenerationRequest, ImageTask
from tests.benchmarks.serving_engines.counters import Counted
from tests.benchmarks.serving_engines.wardrobes import Wardrobe

_SCHEDULERS: dict[SchedulerName, type[Any]] = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpm_solver_multistep": DPMSolverMultistepScheduler,
}


def scheduler_for(name: SchedulerName, published: Any) -> Any:
    """diffusers' own; published: the configuration of the one that the base model came with."""
    is_flow = published["_class_name"] == FlowMatchEulerDiscreteScheduler.__name__
    return (FlowMatchEulerDiscreteScheduler if is_flow else _SCHEDULERS[name]).from_config(published)


class _Abandoned(Exception):
    """Nobody waits for any image of the batch any more."""


@dataclass(eq=False)
class Caller:
    """Who asked: what for, and where to tell."""

    request: GenerationRequest
    adapters: tuple[AppliedAdapter, ...]
    tell: Callable[[Progress | Picture | BaseException], None]
    is_gone: bool = False


@dataclass(frozen=True)
class Wanted:
    """An image that waits."""

    caller: Caller
    task: ImageTask


def by_caller(wanted: Wanted) -> Hashable:
    """Request by request: only the images of one request share a batch."""
    return wanted.caller


def by_adapters(wanted: Wanted) -> Hashable:
    """Grouped by adapter: whatever one call of the pipeline can draw shares a batch, whoever asked."""
    request = wanted.caller.request
    worn = frozenset((adapter.digest, adapter.weight) for adapter in wanted.caller.adapters)
    return worn, request.width, request.height, request.steps, request.scheduler, request.guidance_scale


def next_batch(waiting: Sequence[Wanted], together: Callable[[Wanted], Hashable], most: int) -> list[Wanted]:
    """What runs next, in the order of waiting: the first, and all that may share its batch, `most` at most."""
    shared = together(waiting[0])
    return [wanted for wanted in waiting if together(wanted) == shared][:most]


class PipelineEngine:
    """See CountingEngine. Runs on the GPU where there is one."""

    def __init__(
        self,
        entry: BaseModelEntry,
        dtype: torch.dtype,
        most: int,
        wardrobe: Callable[[Any], Wardrobe],
        together: Callable[[Wanted], Hashable],
    ) -> None:
        diffusers_logging.set_verbosity_error()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._pipeline: Any = load_pipeline(entry, device, dtype)
        if device.type == "cuda":
            # As ours: a batch of large pictures at once would outgrow the device.
            self._pipeline.vae.enable_slicing()
        self._published_scheduler = dict(self._pipeline.scheduler.config)
        self._blank_modules = {
            prefix: without_weights(module) for prefix, module in adaptable_modules(self._pipeline).items()
        }
        self._wardrobe = wardrobe(self._pipeline)
        self._together, self._most = together, most
        self.counters = Counted()
        self._waiting: list[Wanted] = []
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="denoising")
        self._thread.start()

    def read_adapter(self, body: bytes) -> HostAdapter:
        tensors = read_adapter(body, self._blank_modules)
        return HostAdapter(tensors, sum(tensor.nbytes for tensor in tensors.values()))

    def in_slots(self) -> frozenset[str]:
        return self._wardrobe.held

    async def generate(
        self, request: GenerationRequest, adapters: Sequence[AppliedAdapter]
    ) -> AsyncGenerator[Progress | Picture, Any]:
        loop = asyncio.get_running_loop()
        results: asyncio.Queue[Progress | Picture | BaseException] = asyncio.Queue()
        caller = Caller(
            request, tuple(adapters), lambda result: _quietly(loop.call_soon_threadsafe, results.put_nowait, result)
        )
        with self._changed:
            self._waiting += [Wanted(caller, task) for task in request.tasks]
            self._changed.notify()
        unfinished = len(request.tasks)
        try:
            while unfinished:
                result = await results.get()
                if isinstance(result, BaseException):
                    raise result
                unfinished -= isinstance(result, Picture)
                yield result
        finally:
            caller.is_gone = True

    def close(self) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                self._draw(batch)
            except _Abandoned:
                continue
            except Exception as error:
                for caller in {wanted.caller for wanted in batch}:
                    caller.tell(error)

    def _next_batch(self) -> list[Wanted]:
        """Waits until there is one; empty when the engine is to stop."""
        with self._changed:
            while not self._is_closing:
                self._waiting = [wanted for wanted in self._waiting if not wanted.caller.is_gone]
                if self._waiting:
                    batch = next_batch(self._waiting, self._together, self._most)
                    self._waiting = [wanted for wanted in self._waiting if wanted not in batch]
                    return batch
                self._changed.wait()
        return []

    def _draw(self, batch: Sequence[Wanted]) -> None:
        request, adapters = batch[0].caller.request, batch[0].caller.adapters
        indices: dict[Caller, tuple[int, ...]] = {}
        for wanted in batch:
            indices[wanted.caller] = (*indices.get(wanted.caller, ()), wanted.task.index)

        def tell_progress(completed: int) -> None:
            if self._is_closing or all(caller.is_gone for caller in indices):
                raise _Abandoned
            for caller, places in indices.items():
                caller.tell(Progress(places, completed, request.steps))

        def after_step(_pipeline: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            self.counters.forwards += 1
            self.counters.images += len(batch)
            self.counters.adapters += len(adapters)
            tell_progress(step + 1)
            return tensors

        tell_progress(0)
        negative = [wanted.caller.request.negative_prompt for wanted in batch]
        self._wardrobe.dress(adapters)
        self._pipeline.scheduler = scheduler_for(request.scheduler, self._published_scheduler)
        pictures = self._pipeline(
            prompt=[wanted.caller.request.prompts[wanted.task.prompt_index].text for wanted in batch],
            # To SDXL's, none is nothing said, and an empty one is a text.
            negative_prompt=negative if any(negative) else None,
            # One generator an image, on the CPU: its noise depends on neither its neighbours nor the device.
            generator=[torch.Generator().manual_seed(wanted.task.seed) for wanted in batch],
            guidance_scale=request.guidance_scale,
            num_inference_steps=request.steps,
            width=request.width,
            height=request.height,
            output_type="np",
            callback_on_step_end=after_step,
        ).images
        for wanted, values_HWC in zip(batch, pictures, strict=True):
            wanted.caller.tell(Picture(wanted.task, (values_HWC * 255).round().astype("uint8")))


def _quietly(call: Callable[..., object], *arguments: object) -> None:
    """For telling a loop that may have ended."""
    try:
        call(*arguments)
    except RuntimeError:
        return
