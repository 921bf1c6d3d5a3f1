"""The base models of `make bench-gpu`, at full size or tiny, and how much of each measurement a GPU has time for.

Its one rule: weights are random, so that nothing is downloaded; what is measured does not ask what they mean.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import torch

from base_models.catalog import BaseModelEntry, describe
from tests.benchmarks.interleaving import hardware
from tests.benchmarks.printing import printing_to
from tests.benchmarks.random_base_model import write_sdxl, write_stable_diffusion_15, write_tiny, write_tiny_sdxl
from tests.benchmarks.random_flux import write_flux
from tests.benchmarks.stock_dreambooth import Flags
from tests.families.flux import write_tiny_flux

RANK = 16
_TINY_SIDE = 64
_PACKAGES = ("diffusers", "transformers", "peft", "accelerate")


@dataclass(frozen=True)
class Row:
    """A base model of the measurements."""

    write: Callable[[Path], None]
    write_tiny: Callable[[Path], None]
    learning_rate: float
    batch_size: int
    training_steps: int
    """Of the training that is taken apart."""
    stock_precision: str
    """The stock script's flag `mixed_precision`."""
    compared_batch: int
    """The batch of the loops that must say the same; in float32, all activations have to be kept."""
    waiting: int
    """Requests that wait for pictures, each for another adapter."""
    turn_s: float
    """How long an engine draws until it is the other's turn."""
    stock_flags: Mapping[str, float] = field(default_factory=dict)
    """Defaults of its script that are not those of the others."""
    images_per_s: float | None = None
    """The aim, on one H100 or H200."""
    times_plain: float | None = None
    """The aim for images a second with adapters, times those of plain diffusers."""


ROWS = {
    "sd15": Row(
        write_stable_diffusion_15,
        write_tiny,
        learning_rate=Flags().learning_rate,
        batch_size=4,
        training_steps=500,
        stock_precision="no",
        compared_batch=4,
        waiting=16,
        turn_s=15.0,
        images_per_s=8.0,
        times_plain=4.0,
    ),
    "sdxl": Row(
        write_sdxl,
        write_tiny_sdxl,
        learning_rate=1e-4,
        batch_size=4,
        training_steps=300,
        stock_precision="bf16",
        compared_batch=1,
        waiting=16,
        turn_s=20.0,
        images_per_s=1.1,
        times_plain=4.0,
    ),
    # Both of a pair must fit: 34 GB of weights each.
    "flux": Row(
        write_flux,
        write_tiny_flux,
        learning_rate=1e-4,
        batch_size=1,
        training_steps=100,
        stock_precision="bf16",
        compared_batch=1,
        waiting=4,
        turn_s=25.0,
        stock_flags={"adam_weight_decay": 1e-4},
    ),
}


def parsed(parser: argparse.ArgumentParser, when_tiny: Mapping[str, object]) -> argparse.Namespace:
    """The command line, with what both halves of the bench take. when_tiny: other defaults, where models are tiny."""
    parser.add_argument("--only", choices=tuple(ROWS))
    parser.add_argument("--tiny", action="store_true", help="tiny models, for any machine")
    parser.add_argument("--out", type=Path, help="a file that what is printed is added to, for docs/measurements/")
    parser.add_argument("--models", type=Path, help="keep the base models in this folder, and find them there again")
    found = parser.parse_args()
    if found.tiny:
        parser.set_defaults(**when_tiny)
        found = parser.parse_args()
    return found


@contextmanager
def running_on(arguments: argparse.Namespace, title: str) -> Iterator[torch.device]:
    """The device, once said what this runs on. Ends the program where there is none and models are not tiny."""
    if not torch.cuda.is_available() and not arguments.tiny:
        print("skipped: there is no GPU that torch can use here")
        raise SystemExit(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with printing_to(arguments.out):
        packages = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
        driver = f"; CUDA {torch.version.cuda}, {platform.system()}" if device.type == "cuda" else ""
        sizes = "tiny models, whose figures mean nothing" if arguments.tiny else "full size"
        print(f"\n# {title}\n\n{hardware(device)}{driver}; {packages}. Random weights, {sizes}.")
        yield device


def written(arguments: argparse.Namespace) -> Iterator[tuple[str, Row, BaseModelEntry, Path]]:
    """Each base model that is asked for, with a folder for what else is needed, gone afterwards."""
    for name, row in ROWS.items():
        if arguments.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            print(f"\n## {name}\n", flush=True)
            folder = (arguments.models or Path(scratch)) / f"{name}{'-tiny' * arguments.tiny}"
            if not folder.exists():
                began_s = time.perf_counter()
                unfinished = folder.with_name(f"{folder.name}.unfinished")
                (row.write_tiny if arguments.tiny else row.write)(unfinished)
                unfinished.rename(folder)
                print(f"(weights written in {time.perf_counter() - began_s:.0f} s)\n", flush=True)
            entry = describe("random", folder)
            yield name, row, replace(entry, default_size=_TINY_SIDE) if arguments.tiny else entry, Path(scratch)
