"""What `personae doctor` says of the machine: Python, processors, memory, disk, torch and the GPU."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from personae.cli.finding import Finding, gib

_GIB = 2**30
# Both services and a worker, each with the bundled model, hold about 3 GiB.
_LITTLE_MEMORY, _LITTLE_DISK, _NO_DISK = 4 * _GIB, 5 * _GIB, _GIB // 2
_TORCH_REMEDY = "run `make demo`, or: pip install 'torch==2.13.*'"
_CUDA_REMEDY = (
    "install the CUDA build of the same version: pip install --force-reinstall 'torch==2.13.*' from PyTorch's own index"
)


def machine(folder: Path) -> Iterator[Finding]:
    """Python and platform, processors, memory, and the disk that holds `folder`."""
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")
    system = f"{platform.system()} {platform.release()} on {platform.machine()}"
    if sys.platform == "linux":
        yield Finding("platform", "ok", system)
    else:
        yield Finding("platform", "warning", system, "the services were only ever run on Linux; use a container of it")
    yield _processors(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)
    yield memory(_memory_bytes())
    yield disk(shutil.disk_usage(folder).free, folder)


def _processors(count: int) -> Finding:
    if count > 1:
        return Finding("processors", "ok", str(count))
    return Finding("processors", "warning", "1", "a training and pictures will take turns: give it two")


def memory(total_bytes: int) -> Finding:
    """A finding on this much memory."""
    if total_bytes >= _LITTLE_MEMORY:
        return Finding("memory", "ok", gib(total_bytes))
    remedy = f"both services and a training want {gib(_LITTLE_MEMORY)}: raise the limit, or use another machine"
    return Finding("memory", "warning", gib(total_bytes), remedy)


def disk(free_bytes: int, folder: Path) -> Finding:
    """A finding on this much room beside `folder`."""
    found = f"{gib(free_bytes)} free at {folder}"
    if free_bytes >= _LITTLE_DISK:
        return Finding("disk", "ok", found)
    return Finding(
        "disk", "warning" if free_bytes >= _NO_DISK else "wrong", found, "make room: `personae up` keeps all there"
    )


def torch(told: Mapping[str, Any], driver: bool) -> Iterator[Finding]:
    """What `base_models.device_report` said. driver: whether this machine has NVIDIA's."""
    if told["version"] is None:
        yield Finding("torch", "wrong", told["problem"], _TORCH_REMEDY)
        return
    build = f"{told['version']}, for CUDA {told['cuda']}" if told["cuda"] else f"{told['version']}, for CPUs alone"
    yield Finding("torch", "ok", build)
    if told["problem"]:
        yield Finding(
            "gpu", "wrong", told["problem"], "see whether `nvidia-smi` works; driver and torch must fit together"
        )
    elif driver and not told["cuda"]:
        yield Finding("gpu", "wrong", "an NVIDIA driver is here, but this torch cannot use it", _CUDA_REMEDY)
    elif driver and not told["devices"]:
        remedy = "see CUDA_VISIBLE_DEVICES and `nvidia-smi`; a driver that is too old for this torch is not used either"
        yield Finding("gpu", "wrong", "an NVIDIA driver is here, but torch sees no GPU", remedy)
    elif not told["devices"]:
        yield Finding("gpu", "ok", "none; trainings and pictures run on the CPU, which does for the bundled model")
    for index, device in enumerate(told["devices"]):
        found = f"{device['name']}, {gib(device['free_bytes'])} of {gib(device['memory_bytes'])} free"
        if not device["bfloat16"]:
            remedy = "set PERSONAE_INFERENCE_PRECISION=float16, and train with --set precision=float32"
            yield Finding(f"gpu {index}", "warning", f"{found}, no bfloat16", remedy)
        elif device["free_bytes"] < device["memory_bytes"] / 2:
            remedy = "somebody else holds the rest: `nvidia-smi` says who"
            yield Finding(f"gpu {index}", "warning", found, remedy)
        else:
            yield Finding(f"gpu {index}", "ok", f"{found}, bfloat16")


def has_driver() -> bool:
    """Whether NVIDIA's driver is loaded here, or handed into this container."""
    return Path("/proc/driver/nvidia/version").exists() or any(Path("/dev").glob("nvidia[0-9]*"))


def base_model(told: Mapping[str, Any]) -> Finding:
    """What `base_models.examination`, or that of the bucket, said of one base model."""
    check = f"base model {told['name']}"
    if told["problem"]:
        remedy = "correct PERSONAE_BASE_MODELS (docs/base-models.md), or fetch the folder again"
        return Finding(check, "wrong", told["problem"], remedy)
    found = f"{told['pipeline']}, {told['size_bytes'] / 1e6:,.0f} MB in {told['folder']}"
    if told["to_convert_bytes"]:
        found += f"; one checkpoint of {told['to_convert_bytes'] / 1e6:,.0f} MB, brought into parts at the first start"
    return Finding(check, "ok", found)


def _memory_bytes() -> int:
    """What this machine has, or this container may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(total, int(text)) if text.isdigit() else total
