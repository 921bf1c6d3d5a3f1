"""The recipe in its order: a work folder in, a complete model folder out, every stage resumable.

A stage whose result is there is not run again. Its one rule: a work folder belongs to one budget, so results that came
from different ones never meet.

Shapes: N pictures, C channels, H/W 16.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from base_models.likeness.attributes import AttributeClassifier
from base_models.toon_64.recipe import autoencoder, card, denoiser, figures, tokenizer
from base_models.toon_64.recipe.autoencoder import POLISH, WHOLE
from base_models.toon_64.recipe.captions import caption
from base_models.toon_64.recipe.pictures import Pictures, render
from base_models.toon_64.recipe.sliced_training import Plan, Report

TRAINING_DATASET = 1


@dataclass(frozen=True)
class Budget:
    """How much of everything. The defaults are the recipe; smaller ones prove that it runs."""

    pictures: int = 40_000
    """Different pictures, each of a character of its own."""
    autoencoder: Plan = WHOLE
    polish: Plan = POLISH
    denoiser: Plan = denoiser.PLAN
    unseen: int = 1_000
    prompts: int = 512


class OtherBudgetError(Exception):
    """The work folder was begun with another budget."""


@dataclass(frozen=True)
class Recipe:
    """A run of the recipe."""

    folder: Path
    """The work folder."""
    budget: Budget
    device: torch.device
    judge: AttributeClassifier
    report: Report
    slice_s: float = 600.0
    """Seconds between two checkpoints: the most that an interruption costs."""

    def __post_init__(self) -> None:
        """Claim the work folder. Raises OtherBudgetError."""
        claim, budget = self.folder / "budget.json", json.dumps(asdict(self.budget), indent=2)
        if claim.exists() and claim.read_text() != budget:
            raise OtherBudgetError(f"{self.folder} was begun with another budget: {claim}; use another folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        claim.write_text(budget)

    @property
    def model(self) -> Path:
        """The folder of the finished model."""
        return self.folder / "model"

    @cached_property
    def pictures(self) -> Pictures:
        """What is trained on; drawn where it is not there."""
        return render(self.folder / "pictures", TRAINING_DATASET, self.budget.pictures, 1)

    def draw(self) -> bool:
        """Stage 1: the pictures."""
        self.report(f"{len(self.pictures):,} pictures")
        return True

    def make_tokenizer(self) -> bool:
        """Stage 2: the tokenizer."""
        if not (self.folder / "tokenizer").exists():
            made = tokenizer.build(caption(shown) for shown in self.pictures.shown)
            self._whole("tokenizer", made.save_pretrained)
        return True

    def train_autoencoder(self) -> bool:
        """Stage 3, a slice of it: the autoencoder."""
        return self._train_autoencoder("autoencoder", self.budget.autoencoder, autoencoder.train_whole, None)

    def polish(self) -> bool:
        """Stage 4, a slice of it: the decoder alone, from the result of stage 3."""
        return self._train_autoencoder("vae", self.budget.polish, autoencoder.polish, self.folder / "autoencoder")

    def encode(self) -> bool:
        """Stage 5: the latents of all pictures, in float16 and units of the UNet."""
        if not (self.folder / "latents.safetensors").exists():
            vae = autoencoder.load(self.folder / "vae").to(self.device)
            latents_NCHW = autoencoder.encode(vae, self.pictures, range(len(self.pictures)))
            scaled_NCHW = (latents_NCHW * vae.config.scaling_factor).half()
            self._whole("latents.safetensors", lambda path: save_file({"latents_NCHW": scaled_NCHW}, path))
        return True

    def train_denoiser(self) -> bool:
        """Stage 6, a slice of it: UNet and text encoder; afterwards the model's folder is complete but for its card."""
        if self.model.exists():
            return True
        vocabulary = CLIPTokenizer.from_pretrained(self.folder / "tokenizer", local_files_only=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.budget.denoiser.seed)
            unet = denoiser.build_unet().to(self.device, memory_format=torch.channels_last)
            text_encoder = denoiser.build_text_encoder(vocabulary).to(self.device)
        done = denoiser.train(
            unet,
            text_encoder,
            vocabulary,
            load_file(self.folder / "latents.safetensors")["latents_NCHW"],
            self.pictures.shown,
            self.budget.denoiser,
            self.folder / "denoiser.checkpoint",
            self.slice_s,
            self.report,
        )
        if done:
            pipeline = assemble(autoencoder.load(self.folder / "vae"), text_encoder, vocabulary, unet)
            self._whole("model", partial(save, pipeline))
        return done

    def evaluate(self) -> bool:
        """Stage 7: figures.json and README.md of the finished model."""
        training = {
            "autoencoder": f"{self.budget.autoencoder.pictures:,} pictures seen",
            "decoder": f"{self.budget.polish.pictures:,} pictures seen",
            "denoiser": f"{self.budget.denoiser.pictures:,} pictures seen",
            "captions": card.CURRENT_CAPTIONS,
        }
        measured = figures.measure(
            self.model,
            self.folder / "pictures",
            training,
            self.report,
            self.device,
            self.judge,
            self.budget.unseen,
            self.budget.prompts,
        )
        measured.write(self.model)
        (self.model / "README.md").write_text(card.render(self.model, measured))
        return True

    def run(self) -> None:
        """All stages, each to its end."""
        for stage in STAGES:
            self.report(stage.__name__.replace("_", " "))
            while not stage(self):
                self.report("checkpoint written")

    def _train_autoencoder(self, name: str, plan: Plan, train: Callable[..., bool], start: Path | None) -> bool:
        if (self.folder / name).exists():
            return True
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            vae = autoencoder.build() if start is None else autoencoder.load(start)
        vae.to(self.device, memory_format=torch.channels_last)
        done = train(vae, self.pictures, plan, self.folder / f"{name}.checkpoint", self.slice_s, self.report)
        if done:
            self._whole(name, vae.to("cpu").save_pretrained)
        return done

    def _whole(self, name: str, write: Callable[[Path], object]) -> None:
        """Have something written so that it is there whole or not at all."""
        part = self.folder / f"part-{name}"
        write(part)
        part.rename(self.folder / name)


STAGES = (
    Recipe.draw,
    Recipe.make_tokenizer,
    Recipe.train_autoencoder,
    Recipe.polish,
    Recipe.encode,
    Recipe.train_denoiser,
    Recipe.evaluate,
)
"""In their order. A stage that trains returns after a slice whether it is done."""


def save(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write a pipeline in float16, so that plain `from_pretrained` loads all of it in float32.

    transformers loads in the type that the text encoder's config names, diffusers in float32 whatever was saved.
    """
    pipeline.save_pretrained(folder)
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")


def assemble(
    vae: AutoencoderTiny, text_encoder: CLIPTextModel, vocabulary: CLIPTokenizer, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """The pipeline of the four, on the CPU in float16, as it is saved."""
    verbosity = diffusers_logging.get_verbosity()
    # An AutoencoderTiny in the place of an AutoencoderKL draws a notice; it is meant to be there.
    diffusers_logging.set_verbosity_error()
    try:
        return StableDiffusionPipeline(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=vocabulary,
            unet=unet,
            scheduler=denoiser.build_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).to("cpu", torch.float16)
    finally:
        diffusers_logging.set_verbosity(verbosity)
