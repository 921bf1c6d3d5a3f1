"""The UNet and the text encoder, trained together from nothing on the latents and captions of the rendered pictures.

The scheduler that is saved with them is the one they were trained for: v prediction, Stable Diffusion's noise.

Shapes: B batch, N pictures, C channels, H/W 16, T tokens, D features.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from base_models.toon_64.recipe.captions import attribute_phrases, view_phrases
from base_models.toon_64.recipe.pictures import Shown
from base_models.toon_64.recipe.sliced_training import Batch, Plan, Report, load_average, train_slice

PLAN = Plan(
    pictures=480_000, batch_size=64, learning_rate=8e-4, warmup_pictures=12_800, weight_decay=1e-2, averaging=0.9985
)
"""Twelve epochs of the 40,000 pictures; a GPU has time for ten times as many."""

_WIDTH = 192
# A text encoder that learns as fast as the UNet forgets rare words.
_TEXT_ENCODER_RATE = 0.6
_MIN_SNR_GAMMA = 5.0
_NO_CAPTION = 0.1
_BARE_CAPTION = 0.1
_KEPT_PHRASE = 0.87
_SUBJECTS = ("a picture of a {style} character", "{style} character", "a picture of a character", "a character")
_SUBJECT_SHARES = (45, 25, 20, 10)


def build_unet() -> UNet2DConditionModel:
    """An untrained UNet of the bundled size."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128, 176),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder of the bundled size for this tokenizer."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=_WIDTH,
            intermediate_size=4 * _WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_scheduler() -> DDIMScheduler:
    """The scheduler that is saved. Its noise ends at Stable Diffusion's SNR of 0.0047, not at zero."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )


def train(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    latents_NCHW: Tensor,
    shown: Sequence[Shown],
    plan: Plan,
    checkpoint: Path,
    slice_s: float,
    report: Report,
) -> bool:
    """One slice (see `train_slice`); leaves the averaged weights in both networks. Returns whether the plan is done.

    latents_NCHW: scaled to a standard deviation of one, anywhere; shown: what each of them shows.
    """
    noise = DDPMScheduler.from_config(build_scheduler().config)
    device = unet.device
    alphas_cumprod = noise.alphas_cumprod.to(device)
    tokenize = _tokenizer_of(tokenizer)

    def loss(batch: Batch) -> Tensor:
        size = len(batch.rows_B)
        latents_BCHW = latents_NCHW[batch.rows_B.to(latents_NCHW.device)].float().to(device)
        noise_BCHW = torch.randn(latents_BCHW.shape, generator=batch.random).to(device)
        # One timestep from each of B equal parts of the schedule: less noise in the gradient than B free draws.
        uniform_B = (torch.arange(size) + torch.rand(size, generator=batch.random)) / size
        timesteps_B = (uniform_B * noise.config.num_train_timesteps).long().to(device)
        random = Random(int(torch.randint(2**62, (), generator=batch.random)))
        tokens_BT = tokenize([varied_caption(shown[row], random) for row in batch.rows_B.tolist()]).to(device)
        noisy_BCHW = noise.add_noise(latents_BCHW, noise_BCHW, timesteps_B)
        # On a CPU without matrix units for it bfloat16 is slower than float32.
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            prompt_BTD = text_encoder(tokens_BT)[0]
            predicted_BCHW = unet(
                noisy_BCHW.contiguous(memory_format=torch.channels_last), timesteps_B, prompt_BTD
            ).sample.float()
        target_BCHW = noise.get_velocity(latents_BCHW, noise_BCHW, timesteps_B)
        losses_B = F.mse_loss(predicted_BCHW, target_BCHW, reduction="none").mean((1, 2, 3))
        return (min_snr_weights(alphas_cumprod[timesteps_B], _MIN_SNR_GAMMA) * losses_B).mean()

    trained = {"unet": unet, "text_encoder": text_encoder}
    rates = {"text_encoder": _TEXT_ENCODER_RATE}
    done = train_slice(checkpoint, trained, plan, len(shown), loss, slice_s, report, rates)
    load_average(checkpoint, trained)
    return done


def varied_caption(shown: Shown, random: Random) -> str:
    """A caption that says some of what a picture shows, in one of several ways, or nothing at all.

    What is left unsaid teaches what goes without saying; the empty caption is what classifier-free guidance leads away
    from (Ho and Salimans 2022, https://arxiv.org/abs/2207.12598).
    """
    if random.random() < _NO_CAPTION:
        return ""
    subject = random.choices(_SUBJECTS, _SUBJECT_SHARES)[0].format(style=shown["style"])
    if random.random() < _BARE_CAPTION:
        return subject
    said = [phrase for phrase in attribute_phrases(shown) + view_phrases(shown) if random.random() < _KEPT_PHRASE]
    return ", ".join([subject, *said])


def min_snr_weights(alphas_cumprod_B: Tensor, gamma: float) -> Tensor:
    """Weights_B of Min-SNR-gamma on a loss of v (Hang et al. 2023, https://arxiv.org/abs/2303.09556, section 3.4).

    min(SNR, gamma) weighs the error of the picture; an error of v is 1 + SNR times as large.
    """
    snr_B = alphas_cumprod_B / (1 - alphas_cumprod_B)
    return snr_B.clamp(max=gamma) / (snr_B + 1)


def _tokenizer_of(tokenizer: CLIPTokenizer) -> Callable[[list[str]], Tensor]:
    def tokenize(captions: list[str]) -> Tensor:
        return tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids

    return tokenize
