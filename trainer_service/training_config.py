"""Hyper-parameters: their ranges, and how the caller's and the base model's become one config. Pure."""

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from base_models.catalog import BaseModelEntry
from base_models.traits.family_traits import CropName, OptimizerName, PrecisionName, TargetsName
from service_kit.errors import Violations

PresetName = Literal["fast", "balanced", "quality", "low_memory"]
AdapterTypeName = Literal["lora", "dora"]
WeightingName = Literal["constant", "min_snr", "p2", "debiased"]
GradientCheckpointingName = Literal["automatic", "always", "never"]

Given = Mapping[str, int | float | str | bool | Sequence[str]]
"""What a caller set, by the names of `training.proto`; enum values as words in lower case."""

DEFAULT_CAPTION_TEMPLATE = "a picture of {trigger_word} {class_noun}, {caption}"
MAX_STEPS = 20_000
MAX_SEED = 2**63 - 1
MAX_SAMPLE_PROMPTS = 4
_MAX_TEMPLATE = 200
_TEMPLATE_FIELDS = {"trigger_word", "class_noun", "caption"}

# Field: smallest, largest, whether the smallest itself is allowed.
_RANGES: dict[str, tuple[float, float, bool]] = {
    "steps": (1, MAX_STEPS, True),
    "batch_size": (1, 64, True),
    "learning_rate": (0, 0.1, False),
    "warmup_steps": (0, MAX_STEPS, True),
    "rank": (1, 128, True),
    "alpha": (0, 1024, False),
    "seed": (0, MAX_SEED, True),
    "min_snr_gamma": (0, 100, False),
    "caption_dropout": (0, 0.5, True),
    "prior_weight": (0, 10, True),
    "prior_images": (1, 1000, True),
    "checkpoint_every": (1, MAX_STEPS, True),
    "text_encoder_learning_rate": (0, 0.1, True),
    "noise_offset": (0, 1, True),
    "ema_decay": (0, 0.9999, True),
    "gradient_accumulation": (1, 64, True),
    "masked_weight": (0, 1, True),
    "sample_every": (0, MAX_STEPS, True),
    "validate_every": (0, MAX_STEPS, True),
    "validation_images": (0, 100, True),
    "early_stop_patience": (0, 100, True),
}
_PRODIGY_RATE = (0, 10, False)

_PICTURES_AT_ONCE = 8

# The steps of the base model's defaults are for this many pictures; for others they follow the number, within bounds.
_USUAL_IMAGES = 16
_LEAST_STEPS, _MOST_STEPS = 0.6, 2.5
# In short trainings, drawing and validating would take longer than training.
_LEAST_BETWEEN_SAMPLES, _LEAST_BETWEEN_VALIDATIONS = 10, 5
# With fewer pictures than this, each one is worth more in training than held out.
_ENOUGH_TO_HOLD_OUT = 24


@dataclass(frozen=True)
class _Preset:
    steps: float
    """Times the base model's."""
    ema_decay: float = 0.0
    is_sparing: bool = False
    """With memory: pictures one by one, activations computed twice."""


_PRESETS: dict[str, _Preset] = {
    "fast": _Preset(steps=0.5),
    "balanced": _Preset(steps=1.0),
    "quality": _Preset(steps=3.0, ema_decay=0.98),
    "low_memory": _Preset(steps=1.0, is_sparing=True),
}


class TrainingConfig(BaseModel):
    """Every hyper-parameter, decided. The meaning of each is documented in `training.proto`."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    preset: PresetName
    steps: int
    batch_size: int
    gradient_accumulation: int
    optimizer: OptimizerName
    learning_rate: float
    text_encoder_learning_rate: float
    warmup_steps: int
    adapter_type: AdapterTypeName
    rank: int
    alpha: float
    targets: TargetsName
    ema_decay: float
    resolution: int
    aspect_buckets: bool
    crop: CropName
    horizontal_flip: bool
    masked_weight: float
    caption_template: str
    caption_dropout: float
    seed: int
    precision: PrecisionName
    gradient_checkpointing: GradientCheckpointingName
    loss_weighting: WeightingName
    min_snr_gamma: float
    noise_offset: float
    prior_weight: float
    prior_images: int
    checkpoint_every: int
    sample_every: int
    sample_prompts: tuple[str, ...]
    validate_every: int
    validation_images: int
    early_stop_patience: int

    @property
    def pictures_at_once(self) -> int:
        """Most pictures that are encoded, or drawn, at once outside of steps."""
        return 1 if _PRESETS[self.preset].is_sparing else _PICTURES_AT_ONCE


def check_ranges(given: Given, entry: BaseModelEntry, field: str, violations: Violations) -> None:
    """Note every given hyper-parameter that is out of range, as `{field}.{name}`."""
    ranges = dict(_RANGES)
    if given.get("optimizer") == "prodigy":
        ranges["learning_rate"] = _PRODIGY_RATE
    for name, value in given.items():
        if name in ranges and isinstance(value, int | float):
            smallest, largest, closed = ranges[name]
            above = value >= smallest if closed else value > smallest
            allowed = f"{smallest:,} to {largest:,}" if closed else f"above {smallest:,}, up to {largest:,}"
            violations.check(math.isfinite(value) and above and value <= largest, f"{field}.{name}", value, allowed)
    found = given.get("resolution")
    if isinstance(found, int):
        fits = entry.min_size <= found <= entry.max_size and found % entry.size_step == 0
        allowed = f"a multiple of {entry.size_step} from {entry.min_size} to {entry.max_size} for {entry.name}"
        violations.check(fits, f"{field}.resolution", found, allowed)
    rate, name = given.get("text_encoder_learning_rate"), f"{field}.text_encoder_learning_rate"
    # Where it is out of range too, that is said already.
    if isinstance(rate, int | float) and 0 < rate <= _RANGES["text_encoder_learning_rate"][1]:
        allowed = f"0, since {entry.name} has no text encoder that adapters may change"
        violations.check(len(entry.traits.adaptable) > 1, name, rate, allowed)
    steps, warmup_steps = given.get("steps"), given.get("warmup_steps")
    if isinstance(steps, int) and isinstance(warmup_steps, int):
        violations.check(warmup_steps <= steps, f"{field}.warmup_steps", warmup_steps, "at most `steps`")
    if given.get("early_stop_patience") and given.get("validate_every") == 0:
        violations.add(f"{field}.early_stop_patience", "found it without validations; allowed with `validate_every`")
    if given.get("loss_weighting", "min_snr") != "min_snr" and "min_snr_gamma" in given:
        violations.add(f"{field}.min_snr_gamma", f"found it with {given['loss_weighting']}; allowed with MIN_SNR")
    _check_texts(given, field, violations)


def _check_texts(given: Given, field: str, violations: Violations) -> None:
    template = given.get("caption_template")
    if isinstance(template, str):
        allowed = (
            f"1 to {_MAX_TEMPLATE} printable characters with {{trigger_word}}, {{class_noun}} and {{caption}} only"
        )
        violations.check(_is_template(template), f"{field}.caption_template", template[:80], allowed)
    prompts = given.get("sample_prompts", ())
    assert isinstance(prompts, Sequence)
    violations.check(
        len(prompts) <= MAX_SAMPLE_PROMPTS, f"{field}.sample_prompts", len(prompts), f"at most {MAX_SAMPLE_PROMPTS}"
    )
    for index, prompt in enumerate(prompts[:MAX_SAMPLE_PROMPTS]):
        violations.check(
            prompt.isprintable() and prompt.strip() != "",
            f"{field}.sample_prompts[{index}]",
            prompt[:80],
            "printable text that is not empty",
        )


def _is_template(text: str) -> bool:
    try:
        # No attribute, index or format specification, which `str.format` would follow.
        parsed = list(string.Formatter().parse(text))
    except ValueError:
        return False
    fields = [name for _, name, _, _ in parsed if name is not None]
    plain = all(not specification and not conversion for _, _, specification, conversion in parsed)
    known = "trigger_word" in fields and set(fields) <= _TEMPLATE_FIELDS
    return plain and known and text.isprintable() and len(text) <= _MAX_TEMPLATE


def decide(given: Given, entry: BaseModelEntry, seed: int, images: int, subject: str) -> TrainingConfig:
    """The effective config: what was given, and for the rest what suits the base model and the dataset.

    seed: for where none was given. images: accepted pictures of the dataset. subject: the prompt of a picture without a
    caption, which default sample prompts begin with.
    """
    defaults = entry.training
    preset_name = given.get("preset", "balanced")
    assert isinstance(preset_name, str)
    preset = _PRESETS[preset_name]
    for_images = min(max(images / _USUAL_IMAGES, _LEAST_STEPS), _MOST_STEPS)
    steps = given.get("steps", round(defaults.steps * preset.steps * for_images))
    assert isinstance(steps, int)
    rank = given.get("rank", defaults.rank)
    assert isinstance(rank, int)
    decided = {
        "preset": preset_name,
        "steps": steps,
        "batch_size": 1 if preset.is_sparing else defaults.batch_size,
        # Where the caller says how many pictures are computed at once, the step has as many batches as ever.
        "gradient_accumulation": defaults.batch_size if preset.is_sparing and "batch_size" not in given else 1,
        "optimizer": "adamw",
        "learning_rate": 1.0 if given.get("optimizer") == "prodigy" else defaults.learning_rate,
        "text_encoder_learning_rate": 0.0,
        "warmup_steps": min(defaults.warmup_steps, steps),
        "adapter_type": "lora",
        "rank": rank,
        "alpha": float(rank),
        "targets": defaults.targets,
        "ema_decay": preset.ema_decay,
        "resolution": entry.default_size,
        "aspect_buckets": defaults.aspect_buckets,
        "crop": defaults.crop,
        "horizontal_flip": False,
        "masked_weight": 0.1,
        "caption_template": DEFAULT_CAPTION_TEMPLATE,
        "caption_dropout": defaults.caption_dropout,
        "seed": seed,
        "precision": defaults.precision,
        "gradient_checkpointing": "always" if preset.is_sparing else "automatic",
        "loss_weighting": "min_snr" if "min_snr_gamma" in given else "constant",
        "min_snr_gamma": 5.0,
        "noise_offset": 0.0,
        "prior_weight": 0.0,
        "prior_images": defaults.prior_images,
        "checkpoint_every": defaults.checkpoint_every,
        "sample_every": max(_LEAST_BETWEEN_SAMPLES, steps // 4),
        "sample_prompts": tuple(subject + scene for scene in entry.sample_scenes),
        "validate_every": max(_LEAST_BETWEEN_VALIDATIONS, steps // 8),
        "validation_images": images // 10 if images >= _ENOUGH_TO_HOLD_OUT else 0,
        "early_stop_patience": 0,
    }
    return TrainingConfig.model_validate(decided | dict(given))


def training_prompt(template: str, trigger_word: str, class_noun: str, caption: str) -> str:
    """The prompt that a picture is trained with; without a caption, what would lead to it goes too."""
    if not caption:
        template = template.replace(", {caption}", "").replace("{caption}", "")
    return template.format(trigger_word=trigger_word, class_noun=class_noun, caption=caption).strip()
