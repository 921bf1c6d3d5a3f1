"""How much the loss of each timestep counts. Pure.

Weights are for the squared error of what the network predicts. Papers give them for the noise; for a network that
predicts v they are multiplied by SNR / (SNR + 1), because the same mistake is that much smaller in v than in noise; for
one that predicts a flow's velocity by the square of what its mistakes count in the noise.

Shapes: B batch.
"""

import torch
from torch import Tensor

from base_models.family import Prediction
from trainer_service.training_config import WeightingName

# Beyond this signal-to-noise ratio the picture is as good as clean.
_MAX_SNR = 1000.0


def loss_weights(snr_B: Tensor, prediction: Prediction, weighting: WeightingName, gamma: float) -> Tensor:
    """Weights_B for signal-to-noise ratios_B. gamma: of min-SNR alone."""
    if weighting == "constant":
        return torch.ones_like(snr_B)
    noise_B = _noise_weights(snr_B, weighting, gamma)
    if prediction == "flow":
        # The noise is x + (1 - sigma) v, and 1 - sigma = sqrt(SNR) / (1 + sqrt(SNR)).
        return noise_B * snr_B / (1 + snr_B.sqrt()).square()
    return noise_B * snr_B / (snr_B + 1) if prediction == "v_prediction" else noise_B


def _noise_weights(snr_B: Tensor, weighting: WeightingName, gamma: float) -> Tensor:
    if weighting == "min_snr":
        # Hang et al. 2023, https://arxiv.org/abs/2303.09556, section 3.4.
        return snr_B.clamp(max=gamma) / snr_B
    if weighting == "p2":
        # Choi et al. 2022, https://arxiv.org/abs/2204.00227, equation 8, with k = gamma = 1.
        return 1 / (1 + snr_B)
    # Yu et al. 2023, https://arxiv.org/abs/2310.08442, equation 12.
    return snr_B.clamp(max=_MAX_SNR).rsqrt()
