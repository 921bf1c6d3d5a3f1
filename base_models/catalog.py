"""The operator's allow-list of base models and what can be asked of each. Imports no torch.

Everything that a model's own files say is read from them; what they cannot say (good defaults) is its family's preset.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from base_models.activation_figures import ActivationFigures, read_figures
from base_models.traits import FAMILIES
from base_models.traits.family_traits import (
    Architecture,
    Configs,
    FamilyTraits,
    GenerationDefaults,
    GuidanceName,
    JudgeName,
    Preset,
    Reference,
    TrainingDefaults,
)
from base_models.weights.hub_cache import NoSnapshot, folder_of, looks_like_hub_id
from base_models.weights.quantisation import QuantisationUnsupported, is_quantised
from base_models.weights.weights_digest import weights_digest

BUNDLED = {"toon-64": Path(__file__).parent / "toon_64"}


class CatalogError(Exception):
    """An allow-list entry that does not lead to a base model."""


@dataclass(frozen=True)
class BaseModelEntry:
    """A base model that may be used. Sizes are in pixels."""

    name: str
    folder: Path
    pipeline: str
    """Of its family, one of `FAMILIES`."""
    class_noun: str
    size_step: int
    min_size: int
    max_size: int
    default_size: int
    tokenizer_folders: tuple[Path, ...]
    """Those that limit how long a prompt may be."""
    max_prompt_tokens: int
    guidance: GuidanceName
    generation: GenerationDefaults
    training: TrainingDefaults
    sample_scenes: tuple[str, ...]
    """What follows the subject in the prompts of sample pictures."""
    reference: Reference
    judge: JudgeName | None
    """Its own judge of pictures; None: what the operator provides."""
    activations: ActivationFigures | None
    """None: nobody has counted what this family holds while it computes."""
    is_quantised: bool = False
    """Whether its denoiser's weights are: then all but the autoencoder is held in bfloat16."""

    @property
    def traits(self) -> FamilyTraits:
        """Of its family."""
        return FAMILIES[self.pipeline]

    def is_guided(self, guidance_scale: float) -> bool:
        """Whether every step predicts twice, with the prompt and with the negative one."""
        return self.guidance == "classifier_free" and guidance_scale > 1

    def architecture(self) -> Architecture:
        """What it is in the words of other programs' file headers; its own name where it has no published shape."""
        found = self.traits.architecture(Configs(self.folder))
        return found if found.name else replace(found, name=self.name, base_model_version=self.name)

    def digest(self) -> str:
        """SHA-256 (hex) over the weight files and their relative paths. Reads those that changed since it last did."""
        return weights_digest(self.folder)


_PRESETS = {
    "toon-64": Preset(
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
        ),
        judge="toon",
    )
}


def read_allow_list(items: Iterable[str]) -> dict[str, BaseModelEntry]:
    """Describe every allowed base model, by name, in order.

    items: `name` for a bundled model or `name=/folder` for a local one: a diffusers folder, or the hub's cache of a
    repository, at a revision (`hub_cache.folder_of`). Raises CatalogError.
    """
    entries: dict[str, BaseModelEntry] = {}
    for item in items:
        name, _, place = item.strip().partition("=")
        if not name or (not place and name not in BUNDLED):
            raise CatalogError(_not_bundled(name))
        entries[name] = describe(name, _local(name, place) if place else BUNDLED[name])
    return entries


def _not_bundled(name: str) -> str:
    if looks_like_hub_id(name):
        return _fetch_first(name, name.rpartition("/")[2])
    return f"{name!r} is not bundled ({', '.join(BUNDLED)}); give its folder as {name}=/folder"


def _fetch_first(hub_id: str, name: str) -> str:
    folder = f"/models/{hub_id.rpartition('/')[2]}"
    return (
        f"{hub_id!r} is a repository of the hub, and services fetch nothing from it: run `hf download {hub_id} "
        f"--revision REVISION --local-dir {folder}` and give its folder as {name}={folder}"
    )


def _local(name: str, place: str) -> Path:
    if looks_like_hub_id(place) and not Path(place).exists():
        raise CatalogError(_fetch_first(place, name))
    try:
        return folder_of(place)
    except (NoSnapshot, OSError) as error:
        raise CatalogError(f"{name}: {error}") from error


def describe(name: str, folder: Path) -> BaseModelEntry:
    """Read a diffusers folder of a known family. Raises CatalogError where it is none."""
    try:
        found = json.loads((folder / "model_index.json").read_text()).get("_class_name")
        traits = FAMILIES.get(found)
        if traits is None:
            raise CatalogError(f"{name}: {folder} holds a {found}; known are {', '.join(FAMILIES)}")
        configs = Configs(folder)
        traits = traits.in_folder(traits, configs)
        tokenizers = tuple(folder / tokenizer for tokenizer in traits.tokenizers)
        longest = min(traits.longest_prompt(_longest(tokenizer)) for tokenizer in tokenizers)
        sizes = traits.sizes(configs)
        preset = _PRESETS.get(name) or traits.preset(configs)
        guidance = traits.guidance(configs)
        quantised = is_quantised(folder, traits.denoiser)
    except QuantisationUnsupported as error:
        raise CatalogError(f"{name}: {folder}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CatalogError(f"{name}: {folder} is not a diffusers folder: {type(error).__name__}: {error}") from error
    return BaseModelEntry(
        name=name,
        folder=folder,
        pipeline=traits.pipeline,
        class_noun=preset.class_noun,
        size_step=sizes.step,
        min_size=sizes.default // 2,
        max_size=min(sizes.default * 2, sizes.largest or sizes.default * 2),
        default_size=sizes.default,
        tokenizer_folders=tokenizers,
        max_prompt_tokens=longest,
        guidance=guidance,
        generation=preset.generation,
        training=preset.training,
        sample_scenes=preset.sample_scenes,
        reference=preset.reference,
        judge=preset.judge,
        is_quantised=quantised,
        activations=read_figures(name if name in BUNDLED else "", traits.tag),
    )


def _longest(tokenizer: Path) -> int:
    longest: int = json.loads((tokenizer / "tokenizer_config.json").read_text())["model_max_length"]
    return longest
