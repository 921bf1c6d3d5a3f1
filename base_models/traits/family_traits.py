"""What is known of a family without loading it: names, sizes, good defaults. Imports no torch.

Its one rule: whatever differs between families is said here or computed in the family's own file; nothing else asks
which family a base model is of.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SchedulerName = Literal["ddim", "euler", "dpm_solver_multistep"]
TargetsName = Literal["attention", "attention_and_convolution", "all"]
PrecisionName = Literal["float32", "bfloat16", "float16"]
OptimizerName = Literal["adamw", "prodigy"]
CropName = Literal["centre", "salient"]
JudgeName = Literal["toon"]
TEXT_ENCODER_ATTENTION = ["q_proj", "k_proj", "v_proj", "out_proj"]
"""Name endings of the layers that a training adapts in text encoders, where it does."""
GuidanceName = Literal["classifier_free", "embedded", "none"]
"""How a guidance scale takes effect: two predictions a step, a number that the network is told, or not at all.

Of two predictions it is 1 + w of Ho and Salimans 2022, so 1 is off, also where a family's own pipeline is told w.
"""


@dataclass(frozen=True)
class GenerationDefaults:
    """What Generate uses where the caller says nothing."""

    steps: int
    guidance_scale: float
    scheduler: SchedulerName


@dataclass(frozen=True)
class TrainingDefaults:
    """What CreateTraining uses where the caller says nothing."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    rank: int
    targets: TargetsName
    precision: PrecisionName
    caption_dropout: float
    prior_images: int
    checkpoint_every: int
    aspect_buckets: bool
    crop: CropName


@dataclass(frozen=True)
class Reference:
    """How long a training takes on some hardware, at the default size: for estimates before one was carried out here.

    Memory is computed instead: `base_models/activation_figures.py`.
    """

    hardware: str
    seconds_before: float
    seconds_per_example: float
    seconds_per_image: float
    seconds_after: float


@dataclass(frozen=True)
class Preset:
    """What a base model's own files cannot say."""

    class_noun: str
    generation: GenerationDefaults
    training: TrainingDefaults
    sample_scenes: tuple[str, ...]
    """What follows the subject in the prompts of sample pictures."""
    reference: Reference
    judge: JudgeName | None = None
    """Its own judge of pictures; None: what the operator provides."""


@dataclass(frozen=True)
class Configs:
    """The configuration files of a base model's folder."""

    folder: Path

    def index(self) -> dict[str, Any]:
        """Of the whole: `model_index.json`. Raises OSError, ValueError."""
        return dict(json.loads((self.folder / "model_index.json").read_text()))

    def of(self, part: str) -> dict[str, Any]:
        """Of a part, for example `unet` or `scheduler`. Raises OSError, ValueError."""
        file = "scheduler_config.json" if part == "scheduler" else "config.json"
        return dict(json.loads((self.folder / part / file).read_text()))

    def absent(self) -> tuple[str, ...]:
        """Parts of the pipeline that the folder says it lacks. Raises OSError, ValueError."""
        index = json.loads((self.folder / "model_index.json").read_text())
        return tuple(part for part, kind in index.items() if kind == [None, None])


@dataclass(frozen=True)
class Sizes:
    """Of pictures, in pixels: what a side must be a multiple of, and the side that the model was made for."""

    step: int
    default: int
    largest: int | None = None
    """The longest side that its network knows the places of; None: any."""


@dataclass(frozen=True)
class Architecture:
    """ModelSpec's `architecture` and `prediction_type`, and Kohya's `ss_base_model_version`."""

    name: str
    """Empty, and the version too: a shape that has no published name."""
    base_model_version: str
    prediction_type: str | None
    """None: ModelSpec has no word for it."""


@dataclass(frozen=True)
class KohyaPlace:
    """Where a layer of diffusers stands in the code that a model was published with, whose names are Kohya's.

    There several layers may be one, next to each other: this is number `part` of those with these `widths`, which count
    outputs in multiples of the layer's inputs. `turned`: its outputs are two halves, which stand the other way round
    there.
    """

    name: str
    part: int = 0
    widths: tuple[int, ...] = (1,)
    turned: bool = False


def same_place(layer: str) -> KohyaPlace:
    """Of a family that was published under diffusers' names, or whose layers Kohya calls what diffusers calls them."""
    return KohyaPlace(layer)


def as_it_is(traits: "FamilyTraits", configs: Configs) -> "FamilyTraits":
    """Of a family whose folders all hold the same parts."""
    return traits


@dataclass(frozen=True)
class FamilyTraits:
    """A family, known by the pipeline class that a folder's `model_index.json` names."""

    pipeline: str
    tag: str
    """What model hubs call it."""
    adaptable: tuple[str, ...]
    """The parts that adapters may change, the denoiser first: what diffusers' `load_lora_weights` knows them by."""
    tokenizers: tuple[str, ...]
    """Those that limit how long a prompt may be."""
    longest_prompt: Callable[[int], int]
    """Most tokens of a prompt, from a tokenizer's `model_max_length`."""
    guidance: Callable[[Configs], GuidanceName]
    schedulers: tuple[SchedulerName, ...]
    targets: Mapping[TargetsName, list[str]]
    """Name endings of the denoiser's layers that a training adapts, the fewest first."""
    sizes: Callable[[Configs], Sizes]
    architecture: Callable[[Configs], Architecture]
    kohya_prefixes: Mapping[str, str]
    """What Kohya's names of a part's layers begin with."""
    preset: Callable[[Configs], Preset]
    training_weights: PrecisionName = "float32"
    """What a GPU holds the frozen weights in while it trains. A CPU holds float32."""
    kohya_place: Callable[[str], KohyaPlace] = same_place
    """Of a layer of the denoiser. Raises ValueError for one that the published model has not."""
    kohya_module: str | None = "networks.lora"
    """Kohya's own module that reads and writes those names: `ss_network_module`. None: none does."""
    kohya_implementation: str = "diffusers"
    """Whose code has those names: ModelSpec's `implementation`, as Kohya's scripts have it."""
    kohya_readers: str = "Kohya's scripts and ComfyUI"
    """Who reads an adapter in those names, for people."""
    bare_text_encoders: tuple[str, ...] = ("text_encoder",)
    """Those whose layers are called `text_model.…` in published files, and not so in memory."""
    without: Mapping[str, Any] = field(default_factory=dict)
    """What the pipeline is loaded without."""
    in_folder: "Callable[[FamilyTraits, Configs], FamilyTraits]" = as_it_is
    """What is known of one folder: something else where it lacks a part that the family can do without."""

    @property
    def denoiser(self) -> str:
        """The part that denoises: its folder, and what the names of its layers begin with."""
        return self.adaptable[0]
