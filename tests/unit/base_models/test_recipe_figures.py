"""Figures and the card: what is counted, what is compared and with how much patience, what the card says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from base_models.catalog import BUNDLED, describe
from base_models.families.stable_diffusion import StableDiffusion
from base_models.toon_64.recipe import card, obedience
from base_models.toon_64.recipe.figures import Figures, differences, table
from base_models.toon_64.recipe.pictures import STYLES, Shown

COMMITTED = BUNDLED["toon-64"]
ROOT = Path(__file__).parents[3]
VIEW = {"extras": [], "background": "pink", "size": None, "tilt": None, "mirrored": False}
SHOWN: list[Shown] = [
    VIEW | {"style": "micah", "hair": "short", "hairColor": "red", "glasses": "none"},
    VIEW | {"style": "micah", "hair": None, "hairColor": None, "glasses": "sunglasses"},
    VIEW | {"style": "thumbs", "body": "purple"},
]
FIGURES = Figures(
    weights="f" * 64,
    training={
        "autoencoder": "1 picture",
        "decoder": "2 pictures",
        "denoiser": "3 pictures",
        "captions": card.CURRENT_CAPTIONS,
    },
    unseen_pictures=1000,
    autoencoder_psnr_db={"micah": 28.0, "pixel": 26.5, "all": 27.25},
    classifier_accuracy={"hair": 0.97, "glasses": 0.99},
    obedience_by_attribute={"glasses": [10, 40], "hair": [190, 200], "no glasses": [99, 100]},
    obedience_by_style={"micah": [150, 200], "pixel": [50, 100]},
    seconds_alone=0.4,
    seconds_in_groups=0.2,
    device="2 of 2 CPU cores",
)


class PinkEverywhere:
    """Reads every picture as a pink background with short hair and glasses, and remembers what it was shown."""

    def __init__(self) -> None:
        self.heads = {"background": ("pink", "teal"), "hair": ("long", "short"), "glasses": ("glasses", "none")}
        self.shapes: list[torch.Size] = []

    def predict(self, pixels_BCHW: Tensor) -> dict[str, list[str]]:
        assert pixels_BCHW.min() >= -1
        assert pixels_BCHW.max() <= 1
        self.shapes.append(pixels_BCHW.shape)
        read = {"background": "pink", "hair": "short", "glasses": "glasses"}
        return {name: [value] * len(pixels_BCHW) for name, value in read.items()}


def test_only_what_a_prompt_says_counts_as_asked_for() -> None:
    read = {"hair": ["short", "long", "long"], "glasses": ["none", "glasses", "none"], "background": ["pink"] * 3}
    by_attribute, by_style = obedience.count(SHOWN, read)
    assert by_attribute == {"background": (3, 3), "glasses": (0, 1), "hair": (1, 1), "no glasses": (1, 1)}
    assert by_style == {"micah": (3, 4), "thumbs": (1, 1)}


def test_the_model_is_judged_in_groups_with_a_seed_for_each_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    base, judge = StableDiffusion(describe("toon-64", COMMITTED), torch.device("cpu")), PinkEverywhere()
    asked: list[tuple[str, int]] = []

    def generate(prompts: list[str], seeds: range, size: int) -> Tensor:
        asked.extend(zip(prompts, seeds, strict=True))
        return torch.zeros(len(prompts), 3, size, size)

    monkeypatch.setattr(base, "generate", generate)
    measured = obedience.measure(base, judge, SHOWN * 7, print)
    assert [tuple(shape) for shape in judge.shapes] == [(16, 3, 64, 64), (5, 3, 64, 64)]
    assert [seed for _, seed in asked] == list(range(21))
    assert asked[2][0] == "a picture of a thumbs character, purple body, pink background"
    assert measured.by_attribute["background"] == (21, 21)


def test_a_record_of_the_same_figures_is_true() -> None:
    assert differences(FIGURES, replace(FIGURES, seconds_alone=9.0, seconds_in_groups=9.0, device="another")) == []


def test_what_rounding_explains_is_not_held_against_a_record() -> None:
    near = replace(
        FIGURES,
        autoencoder_psnr_db={"micah": 28.04, "pixel": 26.46, "all": 27.25},
        obedience_by_attribute={"glasses": [12, 40], "hair": [186, 200], "no glasses": [97, 100]},
    )
    assert differences(FIGURES, near) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: replace(f, weights="0" * 64), "weights: the record is of ffffffffffff, these are 000000000000"),
        (
            lambda f: replace(f, autoencoder_psnr_db=f.autoencoder_psnr_db | {"pixel": 26.4}),
            "PSNR (dB) pixel: recorded 26.5, measured 26.4, allowed 0.05",
        ),
        (
            lambda f: replace(f, classifier_accuracy=f.classifier_accuracy | {"hair": 0.9}),
            "classifier hair: recorded 0.97, measured 0.9, allowed 0.005",
        ),
        (
            lambda f: replace(f, obedience_by_attribute=f.obedience_by_attribute | {"glasses": [13, 40]}),
            "obedience glasses: recorded 10 of 40, measured 13 of 40, allowed 2 more or fewer",
        ),
        (
            lambda f: replace(f, obedience_by_style={"micah": [150, 200]}),
            "obedience in pixel: the figures are of different things",
        ),
    ],
)
def test_a_figure_that_is_not_true_is_named(change: Callable[[Figures], Figures], said: str) -> None:
    assert differences(FIGURES, change(FIGURES)) == [said]


def test_recorded_and_measured_stand_side_by_side() -> None:
    lines = table(FIGURES, replace(FIGURES, obedience_by_attribute={"hair": [191, 200]})).splitlines()
    assert ["obedience,", "hair", "190", "of", "200", "191", "of", "200"] in [line.split() for line in lines]


def test_figures_are_read_as_they_were_written(tmp_path: Path) -> None:
    FIGURES.write(tmp_path)
    assert Figures.read(tmp_path) == FIGURES


def test_the_card_says_the_figures_and_names_what_is_weak() -> None:
    text = card.render(COMMITTED, FIGURES)
    assert "| pixel | 26.5 |" in text
    assert "| glasses | 25 % | 40 | 99 % |" in text
    assert "fewer than four prompts of five: glasses (25 %)." in text
    assert "most in pixel (26.5 dB)" in text
    assert "earlier captions" not in text


def test_the_card_admits_that_a_model_learned_earlier_captions() -> None:
    earlier = replace(FIGURES, training=FIGURES.training | {"captions": "earlier ones"})
    assert "learned earlier captions" in card.render(COMMITTED, earlier)


def test_the_card_credits_every_style_as_the_notice_does() -> None:
    assert card.SOURCES.keys() == set(STYLES)
    notice = [" ".join(line.split()) for line in (ROOT / "NOTICE").read_text().splitlines()]
    for design, author, licence in card.SOURCES.values():
        assert any(line.startswith(f"{design} {author} {licence}") for line in notice), design


def test_no_line_of_a_card_names_a_path_of_this_machine() -> None:
    assert str(ROOT) not in card.render(COMMITTED, FIGURES)
