"""The engine's port over plain diffusers, in one file: slow and obviously right, so that others are tested by it.

Its one rule: one thread owns the pipeline. Requests run one after the other, the images of a request in groups.

Shapes: B batch, C channels, H/W height and width.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
)
from numpy.typing import NDArray
from torch import Tensor

from base_models.adapter_file import read_adapter
from base_models.catalog import BaseModelEntry, SchedulerName
from base_models.pipelines import Pipeline, adaptable_modules, load_pipeline, without_weights
from base_models.worn_adapters import drop, put_on, wear
from inference_service.engine import AppliedAdapter, HostAdapter, Picture
from inference_service.events import Progress
from inference_service.generation import GenerationRequest, ImageTask

_SCHEDULERS: dict[SchedulerName, type[Any]] = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpm_solver_multistep": DPMSolverMultistepScheduler,
}
_MAX_LOADED_ADAPTERS = 16

OnStep = Callable[[int], None]
"""Told how many denoising steps are completed; raises to stop."""


class _Abandoned(Exception):
    """Nobody waits for the images any more."""


class DiffusersEngine:
    """See Engine. Runs on the GPU where there is one."""

    def __init__(self, entry: BaseModelEntry, batch_size: int) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        pipeline = load_pipeline(entry, device, torch.float32)
        self._pipeline = pipeline
        self._scheduler_config = pipeline.scheduler.config
        modules = adaptable_modules(pipeline)
        self._adapters = LoadedAdapters(modules)
        # Files are checked against modules without weights: the real ones may be changing in the other thread.
        self._blank_modules = {prefix: without_weights(module) for prefix, module in modules.items()}
        self._batch_size = batch_size
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="denoising")

    def read_adapter(self, body: bytes) -> HostAdapter:
        tensors = read_adapter(body, self._blank_modules)
        return HostAdapter(tensors, sum(tensor.nbytes for tensor in tensors.values()))

    def in_slots(self) -> frozenset[str]:
        return self._adapters.digests

    async def generate(
        self, request: GenerationRequest, adapters: Sequence[AppliedAdapter]
    ) -> AsyncGenerator[Progress | Picture, Any]:
        loop = asyncio.get_running_loop()
        results: asyncio.Queue[Progress | Picture | None] = asyncio.Queue()
        abandoned = threading.Event()

        def tell(result: Progress | Picture) -> None:
            loop.call_soon_threadsafe(results.put_nowait, result)

        work = loop.run_in_executor(self._worker, self._run, request, adapters, abandoned, tell)
        work.add_done_callback(lambda _: results.put_nowait(None))
        try:
            while (result := await results.get()) is not None:
                yield result
            await work
        finally:
            abandoned.set()
            work.cancel()

    def close(self) -> None:
        """Wait for the step that is running and stop the thread."""
        self._worker.shutdown(cancel_futures=True)

    def _run(
        self,
        request: GenerationRequest,
        adapters: Sequence[AppliedAdapter],
        abandoned: threading.Event,
        tell: Callable[[Progress | Picture], None],
    ) -> None:
        if abandoned.is_set():
            raise _Abandoned
        self._adapters.apply(adapters)
        for start in range(0, len(request.tasks), self._batch_size):
            group = request.tasks[start : start + self._batch_size]
            indices = tuple(task.index for task in group)

            def on_step(completed: int, indices: tuple[int, ...] = indices) -> None:
                if abandoned.is_set():
                    raise _Abandoned
                tell(Progress(indices, completed, request.steps))

            on_step(0)
            self._pipeline.scheduler = _SCHEDULERS[request.scheduler].from_config(self._scheduler_config)
            latents_BCHW = denoise(self._pipeline, request, group, on_step)
            for task, pixels_HWC in zip(group, decode(self._pipeline, latents_BCHW), strict=True):
                tell(Picture(task, pixels_HWC))


def denoise(pipeline: Pipeline, request: GenerationRequest, tasks: Sequence[ImageTask], on_step: OnStep) -> Tensor:
    """Final latents_BCHW of some images of a request, with the pipeline's scheduler and whatever adapters it wears."""

    def after_step(_pipeline: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1)
        return tensors

    output = pipeline(
        prompt=[request.prompts[task.prompt_index].text for task in tasks],
        negative_prompt=[request.negative_prompt] * len(tasks),
        # One generator an image, on the CPU: its noise depends on neither its neighbours nor the device.
        generator=[torch.Generator().manual_seed(task.seed) for task in tasks],
        guidance_scale=request.guidance_scale,
        num_inference_steps=request.steps,
        width=request.width,
        height=request.height,
        output_type="latent",
        callback_on_step_end=after_step,
    )
    latents_BCHW: Tensor = output.images
    return latents_BCHW


@torch.no_grad()
def decode(pipeline: Pipeline, latents_BCHW: Tensor) -> list[NDArray[np.uint8]]:
    """Each picture's pixels_HWC, as the pipeline itself would have decoded them."""
    pixels_BCHW = pipeline.vae.decode(latents_BCHW / pipeline.vae.config.scaling_factor, return_dict=False)[0]
    return [np.asarray(picture) for picture in pipeline.image_processor.postprocess(pixels_BCHW, output_type="pil")]


class LoadedAdapters:
    """The adapters that the pipeline holds, the most recently used last. They are named by their files' digests."""

    def __init__(self, modules: Mapping[str, Any]) -> None:
        self._modules = modules
        self._names: OrderedDict[str, None] = OrderedDict()

    @property
    def digests(self) -> frozenset[str]:
        return frozenset(tuple(self._names))

    def apply(self, adapters: Sequence[AppliedAdapter]) -> None:
        """Make the pipeline wear these adapters and no others."""
        weights: dict[str, float] = {}
        for adapter in adapters:
            if adapter.digest not in self._names:
                put_on(self._modules, adapter.content.tensors, adapter.digest)
            self._names[adapter.digest] = None
            self._names.move_to_end(adapter.digest)
            # Two adapters may have the same file; they are one with both their weights.
            weights[adapter.digest] = weights.get(adapter.digest, 0.0) + adapter.weight
        # At weight 0 a DoRA would still set its magnitudes.
        wear(self._modules, {name: weight for name, weight in weights.items() if weight})
        while len(self._names) > _MAX_LOADED_ADAPTERS:
            oldest, _ = self._names.popitem(last=False)
            drop(self._modules, oldest)
