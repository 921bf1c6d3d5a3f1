"""The whole recipe with tiny budgets, from Node.js to a folder that diffusers loads, and the verbs round it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from base_models.catalog import BUNDLED
from base_models.likeness.attributes import AttributeClassifier
from base_models.toon_64.recipe import figures, tokenizer
from base_models.toon_64.recipe.captions import caption
from base_models.toon_64.recipe.pictures import STYLES
from base_models.toon_64.recipe.sliced_training import Plan
from base_models.toon_64.recipe.stages import Budget, OtherBudgetError, Recipe

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
BUDGET = Budget(
    pictures=64,
    autoencoder=Plan(pictures=8, batch_size=4, learning_rate=1e-3),
    polish=Plan(pictures=8, batch_size=4, learning_rate=1e-3),
    denoiser=Plan(pictures=12, batch_size=4, learning_rate=1e-3),
    unseen=32,
    prompts=8,
)


@pytest.fixture(scope="module")
def threads() -> Iterator[None]:
    """One thread, so that two runs sum in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What the run reported."""
    return []


@pytest.fixture(scope="module")
def judge() -> AttributeClassifier:
    """One that has learned nothing: whether figures are true does not depend on how good they are."""
    torch.manual_seed(0)
    heads = {"style": STYLES, "hair": ("short", "long", "bun"), "glasses": ("none", "glasses")}
    return AttributeClassifier(heads).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def recipe(
    tmp_path_factory: pytest.TempPathFactory, said: list[str], judge: AttributeClassifier, threads: None
) -> Recipe:
    """A finished run, with a checkpoint after every step."""
    recipe = Recipe(tmp_path_factory.mktemp("base-model"), BUDGET, CPU, judge, said.append, slice_s=0.0)
    recipe.run()
    return recipe


def test_the_result_loads_and_draws(recipe: Recipe) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(recipe.model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    (picture,) = pipeline(
        "a picture of a micah character", num_inference_steps=2, generator=torch.Generator().manual_seed(0)
    ).images
    assert picture.size == (64, 64)


def test_the_result_has_the_files_of_the_committed_model_and_its_size(recipe: Recipe) -> None:
    def files(folder: Path) -> set[str]:
        parts = ("model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae")
        return {str(path.relative_to(folder)) for part in parts for path in folder.glob(f"{part}/*")}

    assert files(recipe.model) == files(BUNDLED["toon-64"])
    assert sum(path.stat().st_size for path in recipe.model.glob("*/*.safetensors")) < 30e6


def test_nothing_in_the_result_names_this_machine(recipe: Recipe) -> None:
    texts = [path for path in recipe.model.rglob("*") if path.suffix in (".json", ".md")]
    assert len(texts) > 5
    assert [path.name for path in texts if str(recipe.folder) in path.read_text()] == []


def test_stages_ran_in_slices(recipe: Recipe, said: list[str]) -> None:
    # Two, two and three steps, one a slice; the last slice ends its stage.
    assert said.count("checkpoint written") == 1 + 1 + 2


def test_every_word_of_the_renderer_is_one_token_also_in_the_committed_tokenizer(recipe: Recipe) -> None:
    words = tokenizer.words(caption(shown) for shown in recipe.pictures.shown)
    for folder in (recipe.model, BUNDLED["toon-64"]):
        known = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        assert {word: known.tokenize(word) for word in words if len(known.tokenize(word)) != 1} == {}


def test_the_figures_and_the_card_are_of_these_weights(recipe: Recipe, judge: AttributeClassifier) -> None:
    recorded = figures.Figures.read(recipe.model)
    again = figures.measure(
        recipe.model, recipe.folder / "pictures", recorded.training, print, CPU, judge, BUDGET.unseen, BUDGET.prompts
    )
    assert figures.differences(recorded, again) == []
    assert recorded.training["denoiser"] == "12 pictures seen"
    assert "| autoencoder" not in (recipe.model / "README.md").read_text()
    assert f"| all | {recorded.autoencoder_psnr_db['all']:.1f} |" in (recipe.model / "README.md").read_text()


def test_a_rerun_finds_everything_done(recipe: Recipe, judge: AttributeClassifier) -> None:
    weights = {path: path.stat().st_mtime_ns for path in recipe.folder.rglob("*.safetensors")}
    Recipe(recipe.folder, BUDGET, CPU, judge, print).run()
    assert {path: path.stat().st_mtime_ns for path in recipe.folder.rglob("*.safetensors")} == weights


def test_a_run_in_one_go_gives_the_same_weights(recipe: Recipe, judge: AttributeClassifier, tmp_path: Path) -> None:
    (tmp_path / "pictures").symlink_to(recipe.folder / "pictures")
    straight = Recipe(tmp_path, BUDGET, CPU, judge, print)
    straight.run()
    assert figures.Figures.read(straight.model).weights == figures.Figures.read(recipe.model).weights


def test_a_work_folder_belongs_to_one_budget(recipe: Recipe, judge: AttributeClassifier) -> None:
    with pytest.raises(OtherBudgetError, match="another budget"):
        Recipe(recipe.folder, replace(BUDGET, pictures=65), CPU, judge, print)
    assert json.loads((recipe.folder / "budget.json").read_text())["pictures"] == 64
