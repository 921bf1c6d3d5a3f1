"""Hyper-parameters: their ranges, and how the caller's and the base model's become one config. Pure."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from base_models.catalog import BaseModelEntry
from service_kit.errors import Violations

Targets = Literal["attention", "attention_and_convolution", "all"]
Precision = Literal["float32", "bfloat16"]

MAX_STEPS = 20_000
MAX_SEED = 2**63 - 1

# Field: smallest, largest, whether the smallest itself is allowed.
_RANGES: dict[str, tuple[float, float, bool]] = {
    "steps": (1, MAX_STEPS, True),
    "batch_size": (1, 64, True),
    "learning_rate": (0, 0.1, False),
    "warmup_steps": (0, MAX_STEPS, True),
    "rank": (1, 128, True),
    "alpha": (0, 1024, False),
    "seed": (0, MAX_SEED, True),
    "min_snr_gamma": (0, 100, True),
    "caption_dropout": (0, 0.5, True),
    "prior_weight": (0, 10, True),
    "prior_images": (1, 1000, True),
    "checkpoint_every": (1, MAX_STEPS, True),
}


class TrainingConfig(BaseModel):
    """Every hyper-parameter, decided. The meaning of each is documented in `training.proto`."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    rank: int
    alpha: float
    targets: Targets
    resolution: int
    seed: int
    precision: Precision
    min_snr_gamma: float
    caption_dropout: float
    prior_weight: float
    prior_images: int
    checkpoint_every: int


def check_ranges(given: Mapping[str, Any], entry: BaseModelEntry, field: str, violations: Violations) -> None:
    """Note every given hyper-parameter that is out of range, as `{field}.{name}`."""
    for name, value in given.items():
        if name in _RANGES:
            smallest, largest, closed = _RANGES[name]
            above = value >= smallest if closed else value > smallest
            allowed = f"{smallest:,} to {largest:,}" if closed else f"above {smallest:,}, up to {largest:,}"
            violations.check(math.isfinite(value) and above and value <= largest, f"{field}.{name}", value, allowed)
    if "resolution" in given:
        found = given["resolution"]
        fits = entry.min_size <= found <= entry.max_size and found % entry.size_step == 0
        allowed = f"a multiple of {entry.size_step} from {entry.min_size} to {entry.max_size} for {entry.name}"
        violations.check(fits, f"{field}.resolution", found, allowed)
    if {"warmup_steps", "steps"} <= given.keys():
        violations.check(
            given["warmup_steps"] <= given["steps"], f"{field}.warmup_steps", given["warmup_steps"], "at most `steps`"
        )


def decide(given: Mapping[str, Any], entry: BaseModelEntry, seed: int) -> TrainingConfig:
    """The effective config: what was given, and the base model's defaults for the rest; `seed` where none was given."""
    defaults = entry.training
    steps = given.get("steps", defaults.steps)
    rank = given.get("rank", defaults.rank)
    decided = {
        "steps": steps,
        "batch_size": defaults.batch_size,
        "learning_rate": defaults.learning_rate,
        "warmup_steps": min(defaults.warmup_steps, steps),
        "rank": rank,
        "alpha": float(rank),
        "targets": defaults.targets,
        "resolution": entry.default_size,
        "seed": seed,
        "precision": defaults.precision,
        "min_snr_gamma": 0.0,
        "caption_dropout": defaults.caption_dropout,
        "prior_weight": 0.0,
        "prior_images": defaults.prior_images,
        "checkpoint_every": defaults.checkpoint_every,
    }
    return TrainingConfig(**(decided | dict(given)))
