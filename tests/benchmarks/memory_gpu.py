"""What trainings are computed to hold against what torch says that they held, on a GPU.

usage: python -m tests.benchmarks.memory_gpu [--only TAG]

Random weights in the shapes of published models: Stable Diffusion 1.5, SDXL and FLUX.1 dev (34 GB of disk), at several
sizes, ranks and batches, with activations kept and computed again. Prints the ratio of the estimate (without the
overhead, which no tensor holds) to `torch.cuda.max_memory_allocated`, which shall be 0.85 to 1.15. Without a GPU it
says so, and that is no failure. Only steps are run: where the estimate is that of the autoencoder, the ratio is above 1
for that reason.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from base_models.catalog import BaseModelEntry, describe
from base_models.loading import load_base_model
from base_models.network_sizes import NetworkSizes, read_network_sizes
from tests.benchmarks.activation_memory import prepared_step
from tests.benchmarks.random_base_model import write_sdxl, write_stable_diffusion_15
from tests.benchmarks.random_flux import write_flux
from trainer_service.training_config import TrainingConfig, decide
from trainer_service.training_memory import training_memory
from trainer_service.worker.autocast import accelerator_for
from trainer_service.worker.trainee import Trainee

_WRITERS: dict[str, Callable[[Path], None]] = {
    "stable-diffusion": write_stable_diffusion_15,
    "stable-diffusion-xl": write_sdxl,
    "flux": write_flux,
}
# Share of the default size, rank, batch.
_ASKED = [(1.0, 16, 1), (1.0, 16, 2), (1.0, 128, 1), (0.5, 16, 4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(_WRITERS))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: there is no GPU that torch can use here")
        return
    print("| model | pixels | rank | batch | recomputed | computed GB | measured GB | ratio |\n" + "| --- " * 8 + "|")
    for name, write in _WRITERS.items():
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder) / name)
                _measure(describe(name, Path(folder) / name))


def _measure(entry: BaseModelEntry) -> None:
    sizes = read_network_sizes(entry)
    for share, rank, batch in _ASKED:
        for recomputes in (False, True):
            given = {"resolution": round(share * entry.default_size), "rank": rank, "batch_size": batch}
            config = decide(given, entry, 0, 16, "a picture of sks person")
            _row(entry, sizes, config, recomputes)


def _row(entry: BaseModelEntry, sizes: NetworkSizes, config: TrainingConfig, recomputes: bool) -> None:
    device = torch.device("cuda")
    # As a training does: text encoders and autoencoder are away while steps run.
    base = load_base_model(entry, device, getattr(torch, entry.traits.training_weights), "on_request")
    with Trainee(base, config, accelerator_for(config, device)) as trainee:
        if recomputes:
            trainee.checkpoint_gradients()
        step = prepared_step(base, config, config.batch_size, config.resolution, device)
        base.make_room()
        finite = torch.ones((), dtype=torch.bool, device=device)
        # Its moments exist from the first step on, so the second is the one that is measured.
        for _ in range(2):
            torch.cuda.reset_peak_memory_stats(device)
            with torch.autocast(device.type, torch.bfloat16):
                step()
            trainee.step(1.0, finite)
        measured = torch.cuda.max_memory_allocated(device)
    computed = training_memory(config, entry, sizes, "cuda", config.batch_size, recomputes).tensors
    print(
        f"| {entry.name} | {config.resolution} | {config.rank} | {config.batch_size} | {recomputes} "
        f"| {computed / 1e9:.2f} | {measured / 1e9:.2f} | {computed / measured:.2f} |",
        flush=True,
    )
    del base
    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
