"""Which training recipe makes the most of sixteen pictures: trains on the six sets, then the judge speaks.

usage: python -m tests.benchmarks.training_recipes [--sets NAME ...] [--recipe "rank=16 steps=600" ...] [--output FILE]

A recipe names what differs from the preset of toon-64; "" is the preset. One row a recipe: means over the sets, and
the worst. Training is the worker's own loop, without bucket and checkpoints; seconds are those of the loop. `--output`
gets a line of JSON for every training, and what it holds already is not trained again.
"""

import argparse
import dataclasses
import json
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from base_models.adapters.adapter_file import write_adapter
from base_models.catalog import BUNDLED, describe
from base_models.families.stable_diffusion import StableDiffusion
from base_models.likeness.evaluation import evaluate
from base_models.likeness.judge import Judge
from base_models.likeness.toon_judge import load_toon_judge
from trainer_service.training_config import DEFAULT_CAPTION_TEMPLATE, TrainingConfig, decide, training_prompt
from trainer_service.worker.autocast import accelerator_for
from trainer_service.worker.evaluating import autoencoded, drawn
from trainer_service.worker.examples import Examples, encode, encode_empty_prompt
from trainer_service.worker.reloading import reloaded
from trainer_service.worker.training_loop import Learned, train

SETS = BUNDLED["toon-64"] / "sets"
NAMES = ("micah-b", "adventurer-c", "toon-a", "mini-d", "style-dylan", "style-emoji")
FIGURES = ("likeness", "obedience", "memorisation", "diversity", "nearest", "seconds")
_TRIGGER, _NOUN = "sks", "character"
_SEED_ROUNDS = 4  # how often the judge's scenes are drawn, each time with other seeds
_AT_ONCE = 8


class Laboratory:
    """The base model, the judge and the sets, loaded once."""

    def __init__(self) -> None:
        entry = describe("toon-64", BUNDLED["toon-64"])
        self._entry = entry
        self._base = StableDiffusion(entry, torch.device("cpu"))
        self._judge: Judge = load_toon_judge(torch.device("cpu"))
        self._pixels = {name: _pixels(name) for name in NAMES}
        self._scenes = list(self._judge.scenes) * _SEED_ROUNDS
        self._prompts = [
            training_prompt(DEFAULT_CAPTION_TEMPLATE, _TRIGGER, _NOUN, "") + scene for scene in self._scenes
        ]
        self._untuned_BCHW = drawn(self._base, self._prompts, entry.default_size, _AT_ONCE, lambda finished: None)

    def trial(self, name: str, given: Mapping[str, Any], pictures: Path | None) -> dict[str, float | None]:
        """Train on a set by a recipe and measure what comes of it."""
        config = decide({"sample_every": 0} | given, self._entry, 0, len(self._pixels[name]), self._prompts[0])
        examples = self._examples(name)
        begun_s = time.monotonic()
        body = self._train(examples, config)
        seconds = time.monotonic() - begun_s
        with reloaded(self._base, body):
            tuned_BCHW = drawn(self._base, self._prompts, self._entry.default_size, _AT_ONCE, lambda finished: None)
        if pictures is not None:
            _write_sheet(tuned_BCHW, pictures)
        found = evaluate(
            self._judge,
            self._pixels[name],
            autoencoded(self._base, self._pixels[name], _AT_ONCE, lambda finished: None),
            self._untuned_BCHW,
            tuned_BCHW,
            self._scenes,
        )
        return {**dataclasses.asdict(found), "nearest": self._nearest(name, tuned_BCHW), "seconds": seconds}

    def _examples(self, name: str) -> Examples:
        captions = [path.read_text() for path in sorted((SETS / name / "train").glob("*.txt"))]
        prompts = [training_prompt(DEFAULT_CAPTION_TEMPLATE, _TRIGGER, _NOUN, caption) for caption in captions]
        subject = encode(self._base, list(self._pixels[name]), prompts, [None] * len(prompts), lambda done, total: None)
        return Examples(subject, subject, encode_empty_prompt(self._base), prior=None)

    def _train(self, examples: Examples, config: TrainingConfig) -> bytes:
        accelerator = accelerator_for(config, self._base.device)
        for moment in train(self._base, examples, config, accelerator, None, lambda step: False):
            if isinstance(moment, Learned):
                return write_adapter(moment.adapter, config.alpha / config.rank)
        raise AssertionError("the loop ends with what was learned")

    def _nearest(self, name: str, tuned_BCHW: Tensor) -> float:
        """Share of the pictures that are nearer to this set than to any of the five others."""
        cosines = torch.stack([self._nearness(tuned_BCHW, self._pixels[other]) for other in NAMES])
        return (cosines.argmax(0) == NAMES.index(name)).float().mean().item()

    def _nearness(self, pixels_BCHW: Tensor, training_NCHW: Tensor) -> Tensor:
        features_BD, training_ND = (
            self._judge.identity(pixels, training_NCHW) for pixels in (pixels_BCHW, training_NCHW)
        )
        assert features_BD is not None
        assert training_ND is not None
        return (features_BD @ training_ND.T).mean(1)


def parse_recipe(text: str) -> dict[str, Any]:
    """`rank=16 targets=attention` as overrides of a training config."""
    given: dict[str, Any] = {}
    for pair in text.split():
        name, _, value = pair.partition("=")
        try:
            given[name] = json.loads(value)
        except json.JSONDecodeError:
            given[name] = value
    return given


def row(recipe: str, trials: list[dict[str, Any]]) -> str:
    """A line of the table: means over the sets, the worst likeness beside its mean."""
    cells = []
    for figure in FIGURES:
        values = [trial[figure] for trial in trials if trial[figure] is not None]
        worst = f" ({min(values):.2f})" if figure == "likeness" and values else ""
        cells.append(f"{statistics.mean(values):.2f}{worst}" if values else "")
    return " | ".join(("", f"`{recipe}`" if recipe else "the preset", *cells, "")).strip()


def _pixels(name: str) -> Tensor:
    paths = sorted((SETS / name / "train").glob("*.png"))
    values_NHWC = np.stack([np.array(Image.open(path), dtype=np.float32) for path in paths])
    return torch.from_numpy(values_NHWC).permute(0, 3, 1, 2) / 127.5 - 1


def _write_sheet(pixels_BCHW: Tensor, path: Path) -> None:
    values = ((pixels_BCHW.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    Image.fromarray(np.concatenate([np.concatenate(list(line), 1) for line in np.split(values, _SEED_ROUNDS)])).save(
        path
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--recipe", nargs="+", default=[""], metavar="OVERRIDES")
    parser.add_argument("--output", type=Path, metavar="FILE")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="where to put a sheet of every training")
    arguments = parser.parse_args()

    known: dict[tuple[str, str], dict[str, Any]] = {}
    if arguments.output and arguments.output.exists():
        lines = [json.loads(line) for line in arguments.output.read_text().splitlines()]
        known = {(line["recipe"], line["set"]): line for line in lines}
    laboratory = Laboratory()
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("| recipe |", " | ".join(FIGURES), "|\n|", " --- |" * (len(FIGURES) + 1))
    for number, recipe in enumerate(arguments.recipe):
        trials = []
        for name in arguments.sets:
            sheet = arguments.pictures / f"{number:02d}-{name}.png" if arguments.pictures else None
            if (recipe, name) not in known:
                known[recipe, name] = {"recipe": recipe, "set": name}
                known[recipe, name] |= laboratory.trial(name, parse_recipe(recipe), sheet)
                if arguments.output:
                    with arguments.output.open("a") as file:
                        file.write(json.dumps(known[recipe, name]) + "\n")
            trials.append(known[recipe, name])
        print(row(recipe, trials), flush=True)


if __name__ == "__main__":
    main()
