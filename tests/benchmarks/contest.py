"""Our loop and the stock one on the same base model, pictures and settings; and that they compute the same."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from base_models.catalog import BaseModelEntry
from base_models.loading import load_base_model
from base_models.pipelines import load_pipeline
from base_models.traits.family_traits import PrecisionName
from tests.benchmarks.our_loop import OurLoop, dictation, examples_of, pixels_of
from tests.benchmarks.stock_dreambooth import Departures, Flags, StockLoop
from tests.benchmarks.stock_dreambooth_flux import StockLoopFlux
from tests.benchmarks.stock_dreambooth_xl import StockLoopXL
from trainer_service.training_config import Given, decide, training_prompt
from trainer_service.worker.training_loop import schedule

SAME: dict[PrecisionName, float] = {"float32": 1e-3, "bfloat16": 1e-2}
"""How far two losses of one step may be apart, as a share: rounding, grown over the steps before."""
_COMPARED_STEPS = 10
_STOCK: dict[str, type[StockLoop]] = {
    "StableDiffusionPipeline": StockLoop,
    "StableDiffusionXLPipeline": StockLoopXL,
    "FluxPipeline": StockLoopFlux,
}
# The base model is told this scale while it learns; the script's own flag is another.
_OUR_GUIDANCE = {"guidance_scale": 1.0}
_NEVER = {"validate_every": 0, "sample_every": 0, "caption_dropout": 0.0, "warmup_steps": 0, "steps": 20_000}

OUR_OPTIMIZER = {"adam_beta1": 0.9, "adam_beta2": 0.99, "adam_weight_decay": 1e-3}
"""The flags with which the script's optimizer is ours."""


class Contest:
    """The base model, its pictures and what both loops are to do with them."""

    def __init__(self, entry: BaseModelEntry, device: torch.device, files: list[Path], given: Given) -> None:
        self._entry, self._device, self._files = entry, device, files
        self.seconds: dict[str, float] = {}
        """What the preparation took, by part."""
        self.config = decide(_NEVER | dict(given), entry, seed=1, images=len(files), subject="sks")
        began_s = time.perf_counter()
        # As a worker holds them.
        held: PrecisionName = entry.traits.training_weights if device.type == "cuda" else "float32"
        self.base = load_base_model(entry, device, getattr(torch, held))
        self.compared_in = held
        """What both loops compute in where their losses are compared."""
        self.same = SAME[held]
        self.seconds["loading the base model"] = time.perf_counter() - began_s
        self._prompts = [
            training_prompt(self.config.caption_template, "sks", entry.class_noun, _caption(path)) for path in files
        ]
        began_s = time.perf_counter()
        pixels = pixels_of(files)
        self.seconds["fetching"] = time.perf_counter() - began_s
        began_s = time.perf_counter()
        self.examples = examples_of(self.base, pixels, self._prompts)
        # Reading a number waits for the device.
        assert self.examples.subject.latents[-1].sum().isfinite().item()
        self.seconds["encoding"] = time.perf_counter() - began_s

    def ours(self, **changed: int | str) -> OurLoop:
        """Our loop, at its first step."""
        return OurLoop(self.base, self.examples, self.config.model_copy(update=changed))

    def stock(
        self,
        optimizer: Mapping[str, float],
        rate_of: Callable[[int], float] | None = None,
        mixed_precision: str = "no",
        **departures: bool,
    ) -> StockLoop:
        """The loop of the base model's script on a base model of its own, at its first step."""
        config = self.config
        flags = Flags(
            resolution=config.resolution,
            train_batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            rank=config.rank,
            mixed_precision=mixed_precision,
            **optimizer,  # type: ignore[arg-type]
        )
        stock = _STOCK[self._entry.pipeline]
        return stock(
            load_pipeline(self._entry, self._device, stock.loaded_in(mixed_precision)),
            self._files,
            self._prompts,
            flags,
            config.seed,
            Departures(tuple(self.base.lora_modules(config.targets)), **departures),
            rate_of,
        )

    def compare_losses(self, batch_size: int) -> float:
        """How far the losses of the two over the same steps are apart, as a share. Raises AssertionError."""
        compared = {"steps": _COMPARED_STEPS, "precision": self.compared_in, "batch_size": batch_size}
        config = self.config.model_copy(update=compared)
        stock = self.stock(
            OUR_OPTIMIZER | _OUR_GUIDANCE,
            rate_of=lambda done: schedule(done + 1, config),
            mixed_precision="no" if self.compared_in == "float32" else "bf16",
        )
        theirs = [
            stock.step(dictation(self.base, self.examples, config, step)) for step in range(1, _COMPARED_STEPS + 1)
        ]
        with self.ours(**compared) as loop:
            for _ in theirs:
                loop.step()
        pairs = [(loop.losses[step], loss) for step, loss in enumerate(theirs, start=1)]
        for step, (ours, loss) in enumerate(pairs, start=1):
            print(f"- step {step:2}: stock {loss:.6f}, ours {ours:.6f}")
        apart = max(abs(ours / loss - 1) for ours, loss in pairs)
        assert apart <= self.same, f"the losses differ by {apart:.2g}; at most {self.same:g} is rounding"
        return apart


def _caption(path: Path) -> str:
    return path.with_suffix(".txt").read_text().strip()
