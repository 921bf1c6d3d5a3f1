"""Proof before publishing: the adapter's file, read back as inference reads it, does what was trained, and has effect.

Shapes: B batch, C channels, H/W height and width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from base_models.family import BaseModel, shape_of
from trainer_service.worker.exact_forward import in_float32
from trainer_service.worker.examples import ExampleSet, chunks_of_one_shape
from trainer_service.worker.reloading import reloaded

_PROBES = 4
_SAME = 1e-3


class AdapterWithoutEffect(Exception):
    """The adapter does not change what the base model predicts."""


class AdapterNotReproduced(Exception):
    """The file, read back, predicts something else than the trained network did."""


@dataclass(frozen=True)
class Probe:
    """Predictions for fixed noise on the subject's own latents and prompts, to compare networks by."""

    noisy_BCHW: Tensor
    timesteps_B: Tensor
    prompts: tuple[str, ...]

    @torch.no_grad()
    def predictions(self, base: BaseModel) -> Tensor:
        """What the denoiser says as it is now; float32, without autocast, whatever its weights are held in."""
        with in_float32(base.adaptable.values()):
            return base.predict(self.noisy_BCHW, self.timesteps_B, base.encode_prompts(self.prompts)).float()


def make_probe(base: BaseModel, examples: ExampleSet) -> Probe:
    """Fixed noise on the first pictures of one shape, over the whole range of timesteps."""
    rows = next(chunks_of_one_shape(examples.shapes, range(len(examples)), _PROBES))
    latents_BCHW = examples.latents_of(rows)
    noise_BCHW = torch.randn(latents_BCHW.shape, generator=torch.Generator().manual_seed(0)).to(latents_BCHW.device)
    uniform_B = (torch.arange(len(rows)) + 0.5) / len(rows)
    timesteps_B = base.timesteps(uniform_B, shape_of(latents_BCHW)).to(latents_BCHW.device)
    noisy_BCHW = base.add_noise(latents_BCHW, noise_BCHW, timesteps_B)
    return Probe(noisy_BCHW, timesteps_B, tuple(examples.prompts[row] for row in rows))


def prove(base: BaseModel, body: bytes, probe: Probe, trained_BCHW: Tensor) -> None:
    """Check an adapter file against the untuned base model and what the trained network predicted.

    The base model must carry no adapter, and carries none afterwards. Raises AdapterInvalid, AdapterWithoutEffect,
    AdapterNotReproduced.
    """
    untuned_BCHW = probe.predictions(base)
    with reloaded(base, body):
        reloaded_BCHW = probe.predictions(base)
    difference = (reloaded_BCHW - trained_BCHW).abs().max().item()
    if not difference <= _SAME:
        raise AdapterNotReproduced(f"the file read back differs by {difference:.2g} from the trained network")
    effect = (reloaded_BCHW - untuned_BCHW).abs().max().item()
    if not effect > _SAME:
        raise AdapterWithoutEffect(
            f"the adapter changes predictions by {effect:.2g} at most; more than {_SAME:g} is needed"
        )
