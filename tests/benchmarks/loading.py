"""`python -m tests.benchmarks.loading`: how long a base model takes to load, beside reading its bytes; in what memory.

In the shape of SDXL in bfloat16 (7 GB of disk; --medium: 180 MB), by processes that take turns with a reader of the
same files. First loads hash the weights, later ones know their digest. What is mapped into memory is touched.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from base_models.catalog import describe
from base_models.loading import load_base_model
from tests.benchmarks.interleaving import hardware, ratio, spread
from tests.benchmarks.random_base_model import write_medium_sdxl, write_sdxl
from tests.process_memory import peak_growth_bytes

_CHUNK = 16 * 1024**2
_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--medium", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--load", type=Path, help="load this folder once, and say what it took")
    arguments = parser.parse_args()
    if arguments.load:
        print(json.dumps(_loaded(arguments.load)))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        (write_medium_sdxl if arguments.medium else write_sdxl)(model, torch.bfloat16)
        _compare(model, Path(folder), arguments.rounds)


def _compare(model: Path, folder: Path, rounds: int) -> None:
    size = sum(path.stat().st_size for path in model.rglob("*.safetensors"))
    print(f"{hardware(_DEVICE)}; {size / 1e9:.2f} GB on {_DEVICE}, files in the page cache\n")
    reading: list[float] = []
    loads: dict[str, list[dict[str, float]]] = {"first": [], "known": []}
    for number in range(rounds):
        # Twice, since the first may have to fetch from the disk what others pushed out of memory.
        reading.append(min(_read_s(model), _read_s(model)))
        for name in loads:
            loads[name].append(_load(model, folder / f"home-{number}"))
    print("| | seconds | times reading | memory over the weights |\n| --- | --- | --- | --- |")
    print(f"| reading the bytes | {spread(reading)} | | |")
    for name, found in loads.items():
        seconds, growth = [one["seconds"] for one in found], [one["growth"] / size for one in found]
        print(f"| loading, digest {name} | {spread(seconds)} | {ratio(seconds, reading)} | {spread(growth, 2)} |")


def _read_s(model: Path) -> float:
    buffer, began_s = bytearray(_CHUNK), time.perf_counter()
    for path in model.rglob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - began_s


def _load(model: Path, home: Path) -> dict[str, float]:
    """In a process of its own. home: where digests are remembered."""
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.benchmarks.loading", "--load", str(model)]
    done = subprocess.run(command, env=os.environ | {"HOME": str(home)}, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _loaded(model: Path) -> dict[str, float]:
    entry, seconds = describe("model", model), []

    def load() -> None:
        began_s = time.perf_counter()
        base: Any = load_base_model(entry, _DEVICE, torch.bfloat16)
        parts = [part for part in base.pipeline.components.values() if isinstance(part, torch.nn.Module)]
        # A number of each page; on a GPU this waits for the copies.
        float(sum(_some(tensor).sum().float() for part in parts for tensor in part.parameters()))
        seconds.append(time.perf_counter() - began_s)

    growth = peak_growth_bytes(load)
    return {"seconds": seconds[0], "growth": float(growth)}


def _some(tensor: torch.Tensor) -> torch.Tensor:
    """Every 1024th number, whatever the order of the dimensions in memory."""
    return tensor.detach().as_strided((tensor.numel() // 1024,), (1024,))


if __name__ == "__main__":
    main()
