"""The peer of the speed measurements for SDXL: the loop of diffusers' DreamBooth-LoRA example for it.

After examples/dreambooth/train_dreambooth_lora_sdxl.py, as its neighbour is after the other script, where every picture
has a prompt of its own. Unlike the other, it prepares pictures once; prompts and pictures it encodes in every step, the
latter in float32. With bfloat16 all weights but the autoencoder's are cast to it.

Shapes: B batch, C channels, H/W height and width, T tokens, D features.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from base_models.pipelines import Pipeline
from tests.benchmarks.stock_dreambooth import Flags, Pictures, StockLoop

_WEIGHTS = {"no": torch.float32, "bf16": torch.bfloat16}


class StockLoopXL(StockLoop):
    """See StockLoop."""

    def __init__(
        self, pipeline: Pipeline, files: Sequence[Path], prompts: Sequence[str], flags: Flags, *others: Any
    ) -> None:
        self._dtype, self._prompts = _WEIGHTS[flags.mixed_precision], prompts
        for part in (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2):
            part.to(self._dtype)
        self._time_ids_6 = torch.tensor(
            [flags.resolution, flags.resolution, 0, 0, flags.resolution, flags.resolution],
            dtype=self._dtype,
            device=pipeline.device,
        )
        super().__init__(pipeline, files, prompts, flags, *others)

    def _read(self, pictures: Pictures) -> Any:
        return [pictures[row] for row in range(len(pictures))]

    def _latents(self, batch: dict[str, Tensor], sample: bool) -> Tensor:
        return super()._latents(batch, sample).to(self._dtype)

    def _conditioning(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        pipeline = self._pipeline
        hidden = []
        for tokenizer, encoder in (
            (pipeline.tokenizer, pipeline.text_encoder),
            (pipeline.tokenizer_2, pipeline.text_encoder_2),
        ):
            tokens = tokenizer(
                [self._prompts[row] for row in batch["rows_B"].tolist()],
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            encoded = encoder(tokens.input_ids.to(encoder.device), output_hidden_states=True, return_dict=False)
            hidden.append(encoded[-1][-2])
        return {"prompt_BTD": torch.concat(hidden, dim=-1), "pooled_BD": encoded[0]}

    def _predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        told = {
            "time_ids": self._time_ids_6.repeat(len(noisy_BCHW), 1),
            "text_embeds": conditioning["pooled_BD"],
        }
        predicted_BCHW: Tensor = self._network(
            noisy_BCHW, timesteps_B, conditioning["prompt_BTD"], added_cond_kwargs=told, return_dict=False
        )[0]
        return predicted_BCHW
