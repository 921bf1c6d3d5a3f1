"""The loss of some examples at their drawn noise: what the network should have said, against what it said.

Shapes: B batch, C channels, H/W height and width of latents.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from base_models.family import BaseModel, Conditioning, shape_of
from trainer_service.training_config import TrainingConfig
from trainer_service.worker.batches import Draw
from trainer_service.worker.examples import ExampleSet, pick, where
from trainer_service.worker.weighting import loss_weights


def losses(
    base: BaseModel,
    examples: ExampleSet,
    drawn: Sequence[Draw],
    empty_prompt: Conditioning,
    config: TrainingConfig,
    weighted: bool = True,
) -> Tensor:
    """Losses_B of draws of one shape; `weighted` by timestep as the config says, and by place where there are masks."""
    rows = [draw.row for draw in drawn]
    latents_BCHW = examples.latents_of(rows)
    device = latents_BCHW.device
    noise_BCHW = torch.stack([draw.noise_CHW for draw in drawn]).to(device)
    timesteps_B = base.timesteps(torch.tensor([draw.uniform for draw in drawn]), shape_of(latents_BCHW)).to(device)
    conditioning = _conditioning(base, examples, drawn, empty_prompt, config, device)
    noisy_BCHW = base.add_noise(latents_BCHW, noise_BCHW, timesteps_B)
    predicted_BCHW = base.predict(noisy_BCHW, timesteps_B, conditioning)
    target_BCHW = base.target(latents_BCHW, noise_BCHW, timesteps_B)
    errors_BCHW = (predicted_BCHW.float() - target_BCHW.float()).square()
    weights_B1HW = examples.loss_weights_of(rows)
    if weights_B1HW is not None:
        # A mean, so that a small subject's loss is not a small loss.
        errors_BCHW = errors_BCHW * weights_B1HW / weights_B1HW.mean((1, 2, 3), keepdim=True)
    losses_B = errors_BCHW.mean((1, 2, 3))
    if weighted and config.loss_weighting != "constant":
        snr_B = base.snr(timesteps_B)
        losses_B = losses_B * loss_weights(snr_B, base.prediction, config.loss_weighting, config.min_snr_gamma)
    return losses_B


def _conditioning(
    base: BaseModel,
    examples: ExampleSet,
    drawn: Sequence[Draw],
    empty_prompt: Conditioning,
    config: TrainingConfig,
    device: torch.device,
) -> Conditioning:
    if config.text_encoder_learning_rate:
        # What the text encoder says changes with every step.
        return base.encode_prompts(["" if draw.dropped else examples.prompts[draw.row] for draw in drawn])
    kept_B = torch.tensor([not draw.dropped for draw in drawn], device=device)
    rows_B = torch.tensor([draw.row for draw in drawn], device=device)
    return where(kept_B, pick(examples.conditioning, rows_B), empty_prompt)
