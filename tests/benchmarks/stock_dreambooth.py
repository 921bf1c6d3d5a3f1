"""The peer of the speed measurements: the loop of diffusers' DreamBooth-LoRA example, at its defaults.

After examples/dreambooth/train_dreambooth_lora.py of diffusers 0.31.0.dev0 (commit 8062870), written anew from what it
does. Its one rule: nothing is done better here than there. In every step pictures are read from their files, tokens
made, pictures and prompts encoded; the loss is waited for; layouts, optimizer and precision are torch's defaults.

Left out are what is off by default (prior preservation, text encoder, validation pictures, gradient checkpointing,
8-bit Adam, xformers, TF32, the hub), trackers, the progress bar and its checkpoint every 500 steps. torchvision's
transforms are done by pillow and numpy, which do the same to pictures that have the right size.

Shapes: B batch, C channels, H/W height and width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from peft import LoraConfig
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from base_models.pipelines import Pipeline


@dataclass(frozen=True)
class Flags:
    """The script's flags that reach its loop, by their names and with their defaults."""

    resolution: int = 512
    center_crop: bool = False
    train_batch_size: int = 4
    gradient_accumulation_steps: int = 1
    learning_rate: float = 5e-4
    lr_scheduler: str = "constant"
    lr_warmup_steps: int = 500
    dataloader_num_workers: int = 0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_weight_decay: float = 1e-2
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    mixed_precision: str = "no"
    rank: int = 4
    guidance_scale: float = 3.5
    """Of the script for FLUX.1 alone."""


@dataclass(frozen=True)
class Departures:
    """What the script has no flag for. Without any it is the script, but that each picture has its own prompt."""

    targets: tuple[str, ...] = ("to_k", "to_q", "to_v", "to_out.0", "add_k_proj", "add_v_proj")
    cached: bool = False
    """Latents and embeddings are computed once."""
    fused_optimizer: bool = False
    channels_last: bool = False


@dataclass(frozen=True)
class Dictated:
    """What chance decides in the script, for one step, decided by somebody else; the posterior's mode is taken."""

    rows: list[int]
    noise_BCHW: Tensor
    timesteps_B: Tensor


class StockLoop:
    """The script between its loading of the models and its saving of the layers; `step` takes one optimizer step.

    What follows `_endless` differs between the scripts.
    """

    network = "unet"
    """The part that is trained."""

    @staticmethod
    def loaded_in(mixed_precision: str) -> torch.dtype:
        """What the weights are loaded in."""
        return torch.float32

    def __init__(
        self,
        pipeline: Pipeline,
        files: Sequence[Path],
        prompts: Sequence[str],
        flags: Flags,
        seed: int,
        departures: Departures,
        rate_of: Callable[[int], float] | None = None,
    ) -> None:
        """pipeline: frozen, on its device, without an adapter. rate_of: of the rate, by finished steps."""
        self._flags, self._departures = flags, departures
        # accelerate has one precision for a process, which the peer's loop may have set; who comes last decides it.
        AcceleratorState._reset_state(reset_partial_state=False)
        self._accelerator = Accelerator(
            gradient_accumulation_steps=flags.gradient_accumulation_steps,
            mixed_precision=flags.mixed_precision,
            cpu=pipeline.device.type == "cpu",
        )
        self._pipeline, self._vae, network = pipeline, pipeline.vae, pipeline.components[self.network]
        self._noise = self._scheduler(pipeline)
        self._pictures = self._read(Pictures(files, prompts, pipeline.tokenizer, flags))
        if departures.channels_last:
            network.to(memory_format=torch.channels_last)
        torch.manual_seed(seed)
        network.add_adapter(
            LoraConfig(
                r=flags.rank,
                lora_alpha=flags.rank,
                init_lora_weights="gaussian",
                target_modules=list(departures.targets),
            )
        )
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            self.parameters,
            lr=flags.learning_rate,
            betas=(flags.adam_beta1, flags.adam_beta2),
            weight_decay=flags.adam_weight_decay,
            eps=flags.adam_epsilon,
            fused=departures.fused_optimizer or None,
        )
        loader = DataLoader(
            self._pictures,
            batch_size=flags.train_batch_size,
            shuffle=True,
            collate_fn=_collated,
            num_workers=flags.dataloader_num_workers,
        )
        schedule: Any = (
            torch.optim.lr_scheduler.LambdaLR(optimizer, rate_of)
            if rate_of is not None
            else get_scheduler(flags.lr_scheduler, optimizer=optimizer, num_warmup_steps=flags.lr_warmup_steps)
        )
        self._network, self._optimizer, loader, self._schedule = self._accelerator.prepare(
            network, optimizer, loader, schedule
        )
        self._network.train()
        everything = _collated([self._pictures[row] for row in range(len(files))]) if departures.cached else None
        self._cache = self._encode(everything, sample=False) if everything is not None else None
        self._batches = self._endless(loader)

    def step(self, dictated: Dictated | None = None) -> float:
        """One step; returns its loss, as the script writes it beside its progress bar."""
        if dictated is None:
            batch = next(self._batches)
            latents_BCHW, conditioning = self._cached(batch) if self._cache else self._encode(batch, sample=True)
            noise_BCHW = torch.randn_like(latents_BCHW)
            timesteps_B = self._draw_timesteps(latents_BCHW)
        else:
            batch = _collated([self._pictures[row] for row in dictated.rows])
            latents_BCHW, conditioning = self._encode(batch, sample=False)
            noise_BCHW = dictated.noise_BCHW.to(latents_BCHW)
            timesteps_B = dictated.timesteps_B.to(latents_BCHW.device)
        with self._accelerator.accumulate(self._network):
            noisy_BCHW = self._add_noise(latents_BCHW, noise_BCHW, timesteps_B)
            predicted_BCHW = self._predict(noisy_BCHW, timesteps_B, conditioning)
            target_BCHW = self._target(latents_BCHW, noise_BCHW, timesteps_B)
            loss = functional.mse_loss(predicted_BCHW.float(), target_BCHW.float(), reduction="mean")
            self._accelerator.backward(loss)
            if self._accelerator.sync_gradients:
                self._accelerator.clip_grad_norm_(self.parameters, self._flags.max_grad_norm)
            self._optimizer.step()
            self._schedule.step()
            self._optimizer.zero_grad()
        return loss.detach().item()

    def _endless(self, loader: DataLoader) -> Iterator[dict[str, Tensor]]:
        while True:
            yield from loader

    def _scheduler(self, pipeline: Pipeline) -> Any:
        return DDPMScheduler.from_config(pipeline.scheduler.config)

    def _draw_timesteps(self, latents_BCHW: Tensor) -> Tensor:
        most = self._noise.config.num_train_timesteps
        return torch.randint(0, most, (len(latents_BCHW),), device=latents_BCHW.device).long()

    def _add_noise(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        noisy_BCHW: Tensor = self._noise.add_noise(latents_BCHW, noise_BCHW, timesteps_B)
        return noisy_BCHW

    def _target(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        if self._noise.config.prediction_type != "v_prediction":
            return noise_BCHW
        velocity_BCHW: Tensor = self._noise.get_velocity(latents_BCHW, noise_BCHW, timesteps_B)
        return velocity_BCHW

    def _read(self, pictures: "Pictures") -> Any:
        return pictures

    def _encode(self, batch: dict[str, Tensor], sample: bool) -> tuple[Tensor, dict[str, Tensor]]:
        return self._latents(batch, sample), self._conditioning(batch)

    def _conditioning(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        tokens_BT = batch["tokens_BT"].to(self._accelerator.device)
        return {"prompt_BTD": self._pipeline.text_encoder(tokens_BT, return_dict=False)[0]}

    def _predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        predicted_BCHW: Tensor = self._network(noisy_BCHW, timesteps_B, conditioning["prompt_BTD"], return_dict=False)[
            0
        ]
        return predicted_BCHW

    def _latents(self, batch: dict[str, Tensor], sample: bool) -> Tensor:
        encoded = self._vae.encode(batch["pixels_BCHW"].to(self._accelerator.device))
        # AutoencoderTiny, which the script would not load, has no posterior.
        if hasattr(encoded, "latents"):
            latents_BCHW = encoded.latents
        else:
            latents_BCHW = encoded.latent_dist.sample() if sample else encoded.latent_dist.mode()
        scaled_BCHW: Tensor = latents_BCHW * self._vae.config.scaling_factor
        return scaled_BCHW

    def _cached(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        assert self._cache is not None
        latents_NCHW, conditioning = self._cache
        rows_B = batch["rows_B"].to(latents_NCHW.device)
        return latents_NCHW[rows_B], {name: values[rows_B] for name, values in conditioning.items()}


class Pictures(Dataset[dict[str, Tensor]]):
    """Reads, crops and tokenises anew whenever it is asked, as the script's dataset does."""

    def __init__(self, files: Sequence[Path], prompts: Sequence[str], tokenizer: Any, flags: Flags) -> None:
        self._files, self._prompts, self._tokenizer, self._flags = files, prompts, tokenizer, flags

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        picture = ImageOps.exif_transpose(Image.open(self._files[row])).convert("RGB")
        size = self._flags.resolution
        scale = size / min(picture.size)
        if scale != 1:
            picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.BILINEAR)
        left, top = (_offset(side - size, self._flags.center_crop) for side in picture.size)
        values_HWC = np.array(picture.crop((left, top, left + size, top + size)))
        tokens = self._tokenizer(
            self._prompts[row],
            truncation=True,
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            return_tensors="pt",
        )
        pixels_CHW = torch.from_numpy(values_HWC).permute(2, 0, 1).contiguous().float().div(255)
        return {
            "pixels_BCHW": pixels_CHW.sub(0.5).div(0.5),
            "tokens_BT": tokens.input_ids[0],
            "rows_B": torch.tensor(row),
        }


def _collated(examples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}


def _offset(room: int, centre: bool) -> int:
    return room // 2 if centre or room == 0 else int(torch.randint(0, room + 1, ()))
