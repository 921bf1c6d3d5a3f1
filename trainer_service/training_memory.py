"""How much memory a training holds at its worst moment: computed from its base model's files and its config. Pure.

Its one rule: what was counted is scaled, what is known is computed, and what is neither is a named constant.
"""

import math
from dataclasses import dataclass
from typing import Literal

from base_models.activation_figures import ActivationFigures, Held
from base_models.adapters.layer_shapes import LayerShapes
from base_models.catalog import BaseModelEntry
from base_models.network_sizes import NetworkSizes, computes_in_halves
from base_models.traits.family_traits import TEXT_ENCODER_ATTENTION
from service_kit.document import Document
from trainer_service.training_config import TrainingConfig

DeviceKind = Literal["cuda", "cpu"]

# CUDA's context with torch's kernels, cuBLAS' and cuDNN's workspaces; on a CPU the interpreter and all that it imports.
# The first is a magnitude that nobody has measured; the second is what toon-64 left over: docs/measurements.md.
OVERHEAD_BYTES: dict[DeviceKind, int] = {"cuda": 1_000_000_000, "cpu": 500_000_000}
# Weight, gradient, and the optimizer's: AdamW has two moments, Prodigy also keeps a sum and where it began. float32.
_ADAPTER_BYTES = {"adamw": 16, "prodigy": 24}
_AVERAGE_BYTES, _CAST_BYTES, _FLOAT_BYTES = 4, 2, 4
# Of a DoRA's activations to a LoRA's: docs/measurements.md.
_DORA = 1.35


class Device(Document):
    """What a worker computes on. `memory_bytes` 0: not known, or the machine's own, which a CPU shares."""

    kind: DeviceKind
    memory_bytes: int = 0


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes by what holds them at the worst moment: a step, drawing, or the autoencoder's. On a GPU the weights that a
    step does not need are away while it runs."""

    weights: int
    adapter: int
    examples: int
    passes: int
    overhead: int

    @property
    def tensors(self) -> int:
        """All but what no tensor holds: what torch reports as allocated."""
        return self.weights + self.adapter + self.examples + self.passes

    @property
    def total(self) -> int:
        return self.tensors + self.overhead

    def measurable(self, kind: DeviceKind) -> int:
        """What a worker would have measured: on a GPU torch's tensors, on a CPU its process."""
        return self.tensors if kind == "cuda" else self.total


def training_memory(
    config: TrainingConfig,
    entry: BaseModelEntry,
    sizes: NetworkSizes,
    kind: DeviceKind,
    pictures: int,
    recomputes: bool,
) -> TrainingMemory:
    """Bytes of a training on so many pictures. recomputes: gradient checkpointing is on.

    Without figures of the family, `passes` is 0: what is computed is then only the least.
    """
    figures = entry.activations
    weights = sizes.on_gpu if kind == "cuda" else sizes.on_cpu
    at_steps = weights.denoiser if kind == "cuda" and not config.text_encoder_learning_rate else weights.all
    is_held_so = computes_in_halves(entry, on_gpu=kind == "cuda")
    halves = is_held_so or _is_asked_in_halves(config, kind)
    parameters = adapter_parameters(config, entry, sizes.layers)
    of_each = _ADAPTER_BYTES[config.optimizer]
    of_each += _AVERAGE_BYTES if config.ema_decay else 0
    of_each += _CAST_BYTES if halves else 0
    step, others = 0.0, 0.0
    if figures:
        # Pictures of the class are drawn without autocast.
        drawn_in_halves = is_held_so or (halves and not config.prior_weight)
        formats = _Formats(halves, drawn_in_halves)
        step, others = _passes(config, entry, figures, sizes.layers, formats, pictures, recomputes)
    worst = (at_steps, step) if at_steps + step > weights.all + others else (weights.all, others)
    return TrainingMemory(
        weights=worst[0],
        adapter=parameters * of_each,
        examples=_examples(config, figures, pictures) if figures else 0,
        passes=round(worst[1]),
        overhead=OVERHEAD_BYTES[kind],
    )


def adapter_parameters(config: TrainingConfig, entry: BaseModelEntry, layers: LayerShapes) -> int:
    """Trained numbers: A [rank, in], B [out, rank]; of a convolution A [rank, in, kh, kw]; DoRA's magnitudes [out]."""
    total = 0
    for name, (outputs, *inputs) in layers.items():
        part, _, layer = name.partition(".")
        targets = entry.traits.targets[config.targets] if part == entry.traits.denoiser else _of_text_encoders(config)
        if any(layer == target or layer.endswith(f".{target}") for target in targets):
            total += config.rank * (math.prod(inputs) + outputs)
            total += outputs if config.adapter_type == "dora" else 0
    return total


def _of_text_encoders(config: TrainingConfig) -> list[str]:
    return TEXT_ENCODER_ATTENTION if config.text_encoder_learning_rate else []


def _is_asked_in_halves(config: TrainingConfig, kind: DeviceKind) -> bool:
    # A CPU computes in float32 where float16 is asked for.
    return config.precision == "bfloat16" or (config.precision == "float16" and kind == "cuda")


def _examples(config: TrainingConfig, figures: ActivationFigures, pictures: int) -> int:
    """Latents and prompts, which are encoded once and stay on the device."""
    latents = figures.latent_channels * _positions(config, figures) * _FLOAT_BYTES
    count = pictures * (2 if config.horizontal_flip else 1)
    count += config.prior_images if config.prior_weight else 0
    return count * (latents + figures.prompt_bytes)


def _passes(
    config: TrainingConfig,
    entry: BaseModelEntry,
    figures: ActivationFigures,
    layers: LayerShapes,
    formats: "_Formats",
    pictures: int,
    recomputes: bool,
) -> tuple[float, float]:
    """Of a step, and of the dearest of all else."""
    positions, at_once = _positions(config, figures), config.pictures_at_once
    in_denoiser = [shape for name, shape in layers.items() if name.startswith(f"{entry.traits.denoiser}.")]
    shape = _Shape(
        weights=sum(map(math.prod, in_denoiser)) / figures.parameters,
        activations=sum(inputs for _, inputs, *_ in in_denoiser) / figures.inputs,
    )
    # Pictures of the subject and of the class are computed one after the other.
    step = shape.scaled(figures.step(config.targets, formats.steps, recomputes), config.batch_size, positions)
    step *= _DORA if config.adapter_type == "dora" else 1.0
    if config.text_encoder_learning_rate:
        step += figures.text_encoding(formats.steps).bytes_for(config.batch_size, 0)
    # The evaluation at the end draws by as many as it may, so no training is without drawing.
    rows = at_once * (2 if entry.is_guided(entry.generation.guidance_scale) else 1)
    others = max(
        shape.scaled(figures.drawn(formats.drawing), rows, positions),
        figures.decoding.bytes_for(at_once, positions),
        figures.encoding.bytes_for(min(at_once, pictures), positions),
    )
    return step, others


def _positions(config: TrainingConfig, figures: ActivationFigures) -> int:
    """Places of a picture's latents. Other shapes of the same area have as many, but for rounding."""
    return (config.resolution // figures.pixels_per_position) ** 2


@dataclass(frozen=True)
class _Formats:
    """Whether 16 bits are computed in."""

    steps: bool
    drawing: bool


@dataclass(frozen=True)
class _Shape:
    """How much larger a denoiser is than the one that was counted: 1 where it is the published one."""

    weights: float
    activations: float

    def scaled(self, held: Held, pictures: int, positions: int) -> float:
        grown = held.bytes_for(pictures, positions) - held.fixed
        return held.fixed * self.weights + grown * self.activations
