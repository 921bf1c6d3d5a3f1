"""The recipe's verbs: make a base model, polish an autoencoder, record a model's figures, compare them with others."""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from base_models.catalog import BUNDLED
from base_models.likeness.attributes import AttributeClassifier
from base_models.toon_64.recipe import autoencoder, card, denoiser, figures
from base_models.toon_64.recipe.pictures import render
from base_models.toon_64.recipe.stages import TRAINING_DATASET, Budget, OtherBudgetError, Recipe

_COMMITTED = BUNDLED["toon-64"]


def main() -> int:
    """Parse the command line, run a verb, return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m base_models.toon_64.recipe", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".local/base-model"), help="work folder (%(default)s)")
    verbs = parser.add_subparsers(required=True)

    make = verbs.add_parser("make", help="run the whole recipe; a rerun goes on where it stopped")
    make.add_argument("--denoiser-pictures", type=int, default=denoiser.PLAN.pictures, help="seen by it (%(default)s)")
    make.set_defaults(run=_make)

    polish = verbs.add_parser("polish", help="train the decoder of an autoencoder, its encoder frozen")
    polish.add_argument("--start", type=Path, default=_COMMITTED / "vae", help="default: the committed autoencoder")
    polish.add_argument("--pictures", type=int, default=autoencoder.POLISH.pictures, help="seen by it (%(default)s)")
    polish.add_argument("--output", type=Path, required=True, help="folder for the float16 result")
    polish.set_defaults(run=_polish)

    record = verbs.add_parser("record", help="measure a model; write its figures.json and README.md")
    record.add_argument("--trained", action="append", default=[], metavar="WHAT=TEXT", help="what its weights saw")
    record.set_defaults(run=_record)

    compare = verbs.add_parser("compare", help="measure a model; fail where its figures.json is not true")
    compare.set_defaults(run=_compare)
    for verb in (record, compare):
        verb.add_argument("--model", type=Path, default=_COMMITTED, help="default: the committed model")

    arguments = parser.parse_args()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        return arguments.run(arguments, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    except OtherBudgetError as error:
        sys.exit(str(error))


def _make(arguments: argparse.Namespace, device: torch.device) -> int:
    budget = Budget(denoiser=replace(denoiser.PLAN, pictures=arguments.denoiser_pictures))
    # The judge is needed last, but what is missing should be missed before hours of training.
    recipe = Recipe(arguments.folder, budget, device, AttributeClassifier.load(device), _say)
    recipe.run()
    print(
        f"{recipe.model} is complete. To put it in the place of the committed one: cp -r {recipe.model}/. {_COMMITTED}/"
    )
    return 0


def _polish(arguments: argparse.Namespace, device: torch.device) -> int:
    pictures = render(arguments.folder / "pictures", TRAINING_DATASET, Budget().pictures, 1)
    unseen = render(arguments.folder / "pictures", figures.UNSEEN_DATASET, Budget().unseen, 1)
    vae = autoencoder.load(arguments.start).to(device, memory_format=torch.channels_last)
    _say_psnr(autoencoder.psnr_by_style(vae, unseen))
    plan = replace(autoencoder.POLISH, pictures=arguments.pictures)
    checkpoint = arguments.folder / "polish-alone.checkpoint"
    done = False
    while not done:
        done = autoencoder.polish(vae, pictures, plan, checkpoint, 600.0, _say)
        _say_psnr(autoencoder.psnr_by_style(vae, unseen))
    vae.to("cpu", torch.float16).save_pretrained(arguments.output)
    return 0


def _record(arguments: argparse.Namespace, device: torch.device) -> int:
    training = dict(item.split("=", 1) for item in arguments.trained)
    if (arguments.model / figures.FILE).exists():
        training = figures.Figures.read(arguments.model).training | training
    measured = _measure(arguments, training, device)
    measured.write(arguments.model)
    (arguments.model / "README.md").write_text(card.render(arguments.model, measured))
    return 0


def _compare(arguments: argparse.Namespace, device: torch.device) -> int:
    recorded = figures.Figures.read(arguments.model)
    measured = _measure(arguments, recorded.training, device)
    print(figures.table(recorded, measured))
    found = figures.differences(recorded, measured)
    print("\n".join(found) if found else "every figure of the record is true")
    return 1 if found else 0


def _measure(arguments: argparse.Namespace, training: dict[str, str], device: torch.device) -> figures.Figures:
    judge = AttributeClassifier.load(device)
    return figures.measure(arguments.model, arguments.folder / "pictures", training, _say, device, judge)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def _say_psnr(psnr: dict[str, float]) -> None:
    _say("PSNR in dB: " + ", ".join(f"{style} {value:.2f}" for style, value in psnr.items()))


if __name__ == "__main__":
    sys.exit(main())
