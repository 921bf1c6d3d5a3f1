"""Which GPUs this process may use, and which worker gets which. Pure but for one look into /dev; no CUDA, no torch."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"


def visible_gpus(environ: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """The GPUs, each as `CUDA_VISIBLE_DEVICES` would name it.

    Where that variable is set, what it lists up to its first -1, as CUDA reads it: indices or UUIDs, of MIG slices too.
    Otherwise one for each /dev/nvidia<number>: a container is given only those that are its own, and CUDA counts them
    from 0 whatever their numbers are.
    """
    listed = environ.get(VISIBLE_DEVICES)
    if listed is None:
        found = [path for path in devices.iterdir() if re.fullmatch(r"nvidia\d+", path.name)]
        return [str(index) for index in range(len(found))]
    gpus: list[str] = []
    for gpu in (entry.strip() for entry in listed.split(",")):
        if gpu in ("", "-1", "NoDevFiles"):
            break
        gpus.append(gpu)
    return gpus


def gpu_of_each_worker(workers: int | None, gpus: Sequence[str]) -> list[str | None]:
    """The GPU of each worker; None where there is no GPU.

    workers: how many; None: one for each GPU, and one where there is none. More workers than GPUs share them in turn.
    """
    count = max(1, len(gpus)) if workers is None else workers
    return [gpus[index % len(gpus)] if gpus else None for index in range(count)]
