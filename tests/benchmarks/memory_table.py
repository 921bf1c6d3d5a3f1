"""What `CreateTraining` with `validate_only` says that trainings need on a GPU, for one published shape of each family.

usage: python -m tests.benchmarks.memory_table [--only TAG]

Its one rule: the services' own code computes it, from files that have the headers of the published shapes and no bytes
(`published_shapes.py`). No weight is read and nothing is measured.
"""

import argparse
import json
import struct
import tempfile
from pathlib import Path

import torch

from base_models.catalog import BaseModelEntry, describe
from base_models.network_sizes import NetworkSizes, read_network_sizes
from tests.benchmarks.published_shapes import PUBLISHED
from tests.benchmarks.weightless import weightless
from trainer_service.memory_advice import Needs
from trainer_service.training_config import Given, decide
from trainer_service.training_memory import Device

_PICTURES = 16
# So large that gradient checkpointing which is automatic stays off.
_HUGE = Device(kind="cuda", memory_bytes=10**15)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(PUBLISHED))
    arguments = parser.parse_args()
    print("| | denoiser | all weights | by default | computed again | low memory |\n" + "| --- " * 6 + "|")
    for tag, write in PUBLISHED.items():
        if arguments.only in (None, tag):
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary) / tag
                write(folder)
                entry = describe(tag, folder)
                write_headers(entry)
                print(_row(entry, read_network_sizes(entry)), flush=True)


def write_headers(entry: BaseModelEntry) -> None:
    """Give a folder of configs the files of its weights: a header each, and a hole for what it speaks of."""
    base = weightless(entry, torch.bfloat16)
    for part, module in base.pipeline.components.items():  # type: ignore[attr-defined]
        if isinstance(module, torch.nn.Module):
            header, end = {}, 0
            # Tied weights come once, as in published files.
            for name, parameter in module.named_parameters():
                begin, end = end, end + 2 * parameter.numel()
                header[name] = {"dtype": "BF16", "shape": list(parameter.shape), "data_offsets": [begin, end]}
            text = json.dumps(header).encode()
            with (entry.folder / part / "model.safetensors").open("wb") as file:
                file.write(struct.pack("<Q", len(text)) + text)
                file.truncate(8 + len(text) + end)


def _row(entry: BaseModelEntry, sizes: NetworkSizes) -> str:
    def needed(given: Given) -> int:
        return Needs(entry, sizes, _PICTURES, _HUGE).bytes_of(decide(given, entry, 0, _PICTURES, "a picture of sks"))

    weights = sizes.on_gpu.denoiser, sizes.on_gpu.all
    presets = needed({}), needed({"gradient_checkpointing": "always"}), needed({"preset": "low_memory"})
    return f"| {entry.name} | " + " | ".join(f"{size / 1e9:.1f}" for size in weights + presets) + " |"


if __name__ == "__main__":
    main()
