"""Loss weightings against the equations of their papers, for networks that predict noise or v."""

import pytest
import torch

from base_models.families.stable_diffusion import StableDiffusion
from trainer_service.training_config import WeightingName
from trainer_service.worker.weighting import loss_weights

SNR_B = torch.tensor([1e-3, 0.2, 1.0, 5.0, 80.0])
BY_PAPER = {
    "constant": torch.ones(5),
    "min_snr": torch.tensor([1.0, 1.0, 1.0, 1.0, 5 / 80]),
    "p2": 1 / (1 + SNR_B),
    "debiased": SNR_B**-0.5,
}


@pytest.mark.parametrize("weighting", BY_PAPER)
def test_weights_on_the_noise_are_those_of_the_paper(weighting: WeightingName) -> None:
    assert torch.allclose(loss_weights(SNR_B, "epsilon", weighting, 5.0), BY_PAPER[weighting])


@pytest.mark.parametrize("weighting", ["min_snr", "p2", "debiased"])
def test_a_mistake_weighs_the_same_in_v_as_in_noise(weighting: WeightingName) -> None:
    alpha_B = (SNR_B / (1 + SNR_B)).sqrt()
    sigma_B = (1 / (1 + SNR_B)).sqrt()
    mistake_in_x0 = 0.3
    in_noise_B = (alpha_B / sigma_B * mistake_in_x0).square()
    in_v_B = (mistake_in_x0 / sigma_B).square()
    assert torch.allclose(
        loss_weights(SNR_B, "epsilon", weighting, 5.0) * in_noise_B,
        loss_weights(SNR_B, "v_prediction", weighting, 5.0) * in_v_B,
    )


def test_signal_to_noise_ratios_are_those_of_the_schedule(base: StableDiffusion) -> None:
    timesteps_B = torch.tensor([0, 500, 999])
    alphas_B = base.pipeline.scheduler.alphas_cumprod[timesteps_B]
    assert torch.allclose(base.snr(timesteps_B), alphas_B / (1 - alphas_B))
