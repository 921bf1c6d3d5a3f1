"""The operator's allow-list of base models and what can be asked of each. Imports no torch.

Everything that a model's own files say is read from them; what they cannot say (good defaults) is a preset by name.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

BUNDLED = {"toon-64": Path(__file__).parent / "toon_64"}

PipelineName = Literal["StableDiffusionPipeline", "StableDiffusionXLPipeline"]
"""A family, by the class that diffusers loads it with."""
SchedulerName = Literal["ddim", "euler", "dpm_solver_multistep"]
TargetsName = Literal["attention", "attention_and_convolution", "all"]
PrecisionName = Literal["float32", "bfloat16", "float16"]
OptimizerName = Literal["adamw", "prodigy"]
CropName = Literal["centre", "salient"]
JudgeName = Literal["toon"]


class CatalogError(Exception):
    """An allow-list entry that does not lead to a base model."""


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
    """What a training costs on some hardware, at the default size: for estimates before one was carried out here."""

    hardware: str
    seconds_before: float
    seconds_per_example: float
    seconds_per_image: float
    seconds_after: float
    loaded_bytes: int
    bytes_per_example: int


@dataclass(frozen=True)
class BaseModelEntry:
    """A base model that may be used. Sizes are in pixels."""

    name: str
    folder: Path
    pipeline: PipelineName
    class_noun: str
    size_step: int
    min_size: int
    max_size: int
    default_size: int
    tokenizer_folders: tuple[Path, ...]
    """One for each text encoder."""
    max_prompt_tokens: int
    generation: GenerationDefaults
    training: TrainingDefaults
    sample_scenes: tuple[str, ...]
    """What follows the subject in the prompts of sample pictures."""
    reference: Reference
    judge: JudgeName | None
    """Its own judge of pictures; None: what the operator provides."""

    def digest(self) -> str:
        """SHA-256 (hex) over the weight files and their relative paths. Reads them all."""
        total = hashlib.sha256()
        for path in sorted(self.folder.rglob("*.safetensors")):
            with path.open("rb") as file:
                total.update(
                    f"{path.relative_to(self.folder)}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
                )
        return total.hexdigest()


@dataclass(frozen=True)
class _Preset:
    class_noun: str
    generation: GenerationDefaults
    training: TrainingDefaults
    sample_scenes: tuple[str, ...]
    reference: Reference
    judge: JudgeName | None = None


# diffusers' DreamBooth-LoRA example, with a warm-up.
_STABLE_DIFFUSION = _Preset(
    class_noun="person",
    generation=GenerationDefaults(steps=30, guidance_scale=7.5, scheduler="dpm_solver_multistep"),
    training=TrainingDefaults(
        steps=800,
        batch_size=2,
        learning_rate=1e-4,
        warmup_steps=50,
        rank=16,
        targets="attention",
        precision="bfloat16",
        caption_dropout=0.05,
        prior_images=100,
        checkpoint_every=100,
        aspect_buckets=True,
        crop="salient",
    ),
    sample_scenes=(", portrait", ", on a beach"),
    # 0.8 TFLOP a forward pass, 2.1 times that with the backward pass: docs/measurements.md.
    reference=Reference(
        hardware="an H100 at 40 % of its peak, computed from operation counts, start and end guessed, never measured",
        seconds_before=20.0,
        seconds_per_example=0.0043,
        seconds_per_image=0.13,
        seconds_after=10.0,
        loaded_bytes=4_500_000_000,
        bytes_per_example=1_500_000_000,
    ),
)
# diffusers' DreamBooth-LoRA example for SDXL, with a warm-up; its batch of four is accumulated from single pictures.
_STABLE_DIFFUSION_XL = _Preset(
    class_noun="person",
    generation=GenerationDefaults(steps=30, guidance_scale=5.0, scheduler="euler"),
    training=TrainingDefaults(
        steps=500,
        batch_size=4,
        learning_rate=1e-4,
        warmup_steps=50,
        rank=16,
        targets="attention",
        precision="bfloat16",
        caption_dropout=0.05,
        prior_images=100,
        checkpoint_every=100,
        aspect_buckets=True,
        crop="salient",
    ),
    sample_scenes=(", portrait", ", on a beach"),
    # 6.76 TFLOP a forward pass at 1024 pixels, 2.1 times that with the backward pass, 10.5 for decoding a picture; 3.5
    # thousand million parameters in float32; what the backward pass needs of a picture, counted tensor by tensor.
    reference=Reference(
        hardware="an H100 at 40 % of its peak, computed from operation counts, start and end guessed, never measured",
        seconds_before=60.0,
        seconds_per_example=0.036,
        seconds_per_image=1.05,
        seconds_after=20.0,
        loaded_bytes=14_000_000_000,
        bytes_per_example=12_000_000_000,
    ),
)
_BY_PIPELINE: dict[PipelineName, _Preset] = {
    "StableDiffusionPipeline": _STABLE_DIFFUSION,
    "StableDiffusionXLPipeline": _STABLE_DIFFUSION_XL,
}
_TOKENIZERS: dict[PipelineName, tuple[str, ...]] = {
    "StableDiffusionPipeline": ("tokenizer",),
    "StableDiffusionXLPipeline": ("tokenizer", "tokenizer_2"),
}
_PRESETS = {
    "toon-64": _Preset(
        class_noun="character",
        generation=GenerationDefaults(steps=20, guidance_scale=3.0, scheduler="ddim"),
        # What made the most of sixteen pictures in a minute: docs/likeness.md has the table.
        training=TrainingDefaults(
            steps=140,
            batch_size=8,
            learning_rate=5e-3,
            warmup_steps=20,
            rank=8,
            targets="all",
            precision="float32",
            caption_dropout=0.05,
            prior_images=32,
            checkpoint_every=50,
            # It has only ever seen squares, and framing is something that prompts say.
            aspect_buckets=False,
            crop="centre",
        ),
        sample_scenes=(", happy, blue background", ", surprised, green background, close-up"),
        reference=Reference(
            hardware="one thread of a 2.8 GHz Xeon of 2019",
            seconds_before=3.0,
            seconds_per_example=0.041,
            seconds_per_image=0.7,
            seconds_after=14.0,
            loaded_bytes=700_000_000,
            bytes_per_example=60_000_000,
        ),
        judge="toon",
    )
}


def read_allow_list(items: Iterable[str]) -> dict[str, BaseModelEntry]:
    """Describe every allowed base model, by name, in order.

    items: `name` for a bundled model or `name=/folder` for a local diffusers folder. Raises CatalogError.
    """
    entries: dict[str, BaseModelEntry] = {}
    for item in items:
        name, _, folder = item.strip().partition("=")
        if not name or (not folder and name not in BUNDLED):
            raise CatalogError(f"{name!r} is not bundled ({', '.join(BUNDLED)}); give its folder as {name}=/folder")
        entries[name] = describe(name, Path(folder) if folder else BUNDLED[name])
    return entries


def describe(name: str, folder: Path) -> BaseModelEntry:
    """Read a diffusers folder of a known family. Raises CatalogError where it is none."""
    try:
        found = json.loads((folder / "model_index.json").read_text()).get("_class_name")
        pipeline = next((known for known in _BY_PIPELINE if known == found), None)
        if pipeline is None:
            raise CatalogError(f"{name}: {folder} holds a {found}; known are {', '.join(_BY_PIPELINE)}")
        unet = json.loads((folder / "unet" / "config.json").read_text())
        vae = json.loads((folder / "vae" / "config.json").read_text())
        tokenizers = tuple(folder / tokenizer for tokenizer in _TOKENIZERS[pipeline])
        longest = min(_longest_prompt(tokenizer) for tokenizer in tokenizers)
        vae_factor = 2 ** (len(vae["block_out_channels"]) - 1)
        default_size = unet["sample_size"] * vae_factor
        levels = len(unet["block_out_channels"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CatalogError(f"{name}: {folder} is not a diffusers folder: {type(error).__name__}: {error}") from error
    preset = _PRESETS.get(name, _BY_PIPELINE[pipeline])
    return BaseModelEntry(
        name=name,
        folder=folder,
        pipeline=pipeline,
        class_noun=preset.class_noun,
        # The UNet halves the latents between its levels; sizes must survive that.
        size_step=vae_factor * 2 ** (levels - 1),
        min_size=default_size // 2,
        max_size=default_size * 2,
        default_size=default_size,
        tokenizer_folders=tokenizers,
        max_prompt_tokens=longest,
        generation=preset.generation,
        training=preset.training,
        sample_scenes=preset.sample_scenes,
        reference=preset.reference,
        judge=preset.judge,
    )


def _longest_prompt(tokenizer: Path) -> int:
    # The begin and end marks take two.
    longest: int = json.loads((tokenizer / "tokenizer_config.json").read_text())["model_max_length"] - 2
    return longest
