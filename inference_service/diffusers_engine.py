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
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import retrieve_latents
from numpy.typing import NDArray
from torch import Tensor

from base_models.adapter_file import read_adapter
from base_models.catalog import BaseModelEntry, SchedulerName
from base_models.stable_diffusion import adaptable_modules, load_pipeline, without_weights
from base_models.worn_adapters import drop, put_on, wear
from inference_service.denoising.start_latents import pixels_of
from inference_service.engine import AppliedAdapter, HostAdapter, Picture
from inference_service.events import Progress
from inference_service.generation import GenerationRequest, ImageTask
from inference_service.start_pictures import Start

_SCHEDULERS: dict[SchedulerName, type[Any]] = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpm_solver_multistep": DPMSolverMultistepScheduler,
}
_MAX_LOADED_ADAPTERS = 16

Pipeline = Any
"""A StableDiffusionPipeline, whose parts are set at run time, out of the sight of type checkers."""
OnStep = Callable[[int], None]
"""Told how many denoising steps are completed; raises to stop."""


class _Abandoned(Exception):
    """Nobody waits for the images any more."""


class DiffusersEngine:
    """See Engine. Runs on the GPU where there is one."""

    def __init__(self, entry: BaseModelEntry, batch_size: int) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        pipeline: Pipeline = load_pipeline(entry, device, torch.float32)
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
                tell(Progress(indices, completed, request.steps_run))

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

    drawing, placed = _drawing(pipeline, request, len(tasks))
    output = drawing(
        prompt=[request.prompts[task.prompt_index].text for task in tasks],
        negative_prompt=[request.negative_prompt] * len(tasks),
        # One generator an image, on the CPU: its noise depends on neither its neighbours nor the device.
        generator=[torch.Generator().manual_seed(task.seed) for task in tasks],
        guidance_scale=request.guidance_scale,
        num_inference_steps=request.steps,
        output_type="latent",
        callback_on_step_end=after_step,
        **placed,
    )
    latents_BCHW: Tensor = output.images
    return latents_BCHW


def _drawing(pipeline: Pipeline, request: GenerationRequest, images: int) -> tuple[Pipeline, dict[str, Any]]:
    """Which of diffusers' pipelines draws the request, of the same parts, and what only that one is told."""
    size = {"width": request.width, "height": request.height}
    start = request.start
    if start is None:
        return pipeline, size
    kind = StableDiffusionImg2ImgPipeline if start.mask_HW is None else StableDiffusionInpaintPipeline
    drawing = kind(**pipeline.components, requires_safety_checker=False)
    drawing.set_progress_bar_config(disable=True)
    latents_BCHW = encode(pipeline, start).repeat(images, 1, 1, 1)
    told = {"image": latents_BCHW, "strength": start.strength}
    if start.mask_HW is None:
        return drawing, told
    # Only a network with inputs for it would look at the masked picture; without one, the pipeline would encode it.
    masked = {"mask_image": torch.tensor(start.mask_HW)[None, None], "masked_image_latents": latents_BCHW}
    return drawing, {**size, **told, **masked}


@torch.no_grad()
def encode(pipeline: Pipeline, start: Start) -> Tensor:
    """Latents_1CHW of the picture: the mean where there is a posterior, so that the noise is the first thing drawn."""
    vae = pipeline.vae
    pixels_1CHW = pixels_of(torch.tensor(start.picture_HWC)).to(vae.device, vae.dtype)
    latents_1CHW: Tensor = retrieve_latents(vae.encode(pixels_1CHW), sample_mode="argmax") * vae.config.scaling_factor
    return latents_1CHW


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
