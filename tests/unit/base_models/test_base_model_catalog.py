"""The operator's allow-list, and counting tokens as the text encoder does."""

import io
import json
import shutil
from pathlib import Path

import pytest

from base_models.catalog import BUNDLED, BaseModelEntry, CatalogError, read_allow_list
from base_models.prompt_tokens import PromptTokens


@pytest.fixture(scope="module")
def toon() -> BaseModelEntry:
    return read_allow_list(["toon-64"])["toon-64"]


@pytest.fixture(scope="module")
def tokens(toon: BaseModelEntry) -> PromptTokens:
    return PromptTokens(toon)


def test_the_bundled_model_is_described_by_its_files(toon: BaseModelEntry) -> None:
    assert (toon.size_step, toon.min_size, toon.max_size, toon.default_size) == (16, 32, 128, 64)
    assert toon.max_prompt_tokens == 38
    assert len(toon.digest()) == 64
    assert toon.judge == "toon"
    assert toon.digest() == toon.digest()


def test_a_local_folder_has_the_name_that_the_operator_gives(toon: BaseModelEntry, tmp_path: Path) -> None:
    copied = tmp_path / "model"
    shutil.copytree(BUNDLED["toon-64"], copied, ignore=shutil.ignore_patterns("sets"))
    entries = read_allow_list([f"mine={copied}", " toon-64 "])
    assert list(entries) == ["mine", "toon-64"]
    assert entries["mine"].folder == copied
    assert entries["mine"].digest() == toon.digest()
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert entries["mine"].digest() != toon.digest()


@pytest.mark.parametrize(
    "item", ["", "attacker/repo", "stabilityai/stable-diffusion-xl-base-1.0", "x=/nowhere", "../x"]
)
def test_what_is_neither_bundled_nor_a_folder_is_refused(item: str) -> None:
    with pytest.raises(CatalogError):
        read_allow_list([item])


def test_a_folder_of_another_pipeline_is_refused(tmp_path: Path) -> None:
    copied = tmp_path / "model"
    shutil.copytree(BUNDLED["toon-64"], copied, ignore=shutil.ignore_patterns("sets", "*.safetensors"))
    (copied / "model_index.json").write_text(json.dumps({"_class_name": "KandinskyPipeline"}))
    with pytest.raises(CatalogError, match="KandinskyPipeline"):
        read_allow_list([f"mine={copied}"])


def test_code_beside_a_tokenizer_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, ran = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(BUNDLED["toon-64"], folder, ignore=shutil.ignore_patterns("sets", "*.safetensors"))
    settings = folder / "tokenizer" / "tokenizer_config.json"
    mine = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | mine))
    (folder / "tokenizer" / "mine.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    # At a terminal the library would ask.
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(CatalogError, match=r"mine: .*/tokenizer holds no tokenizer: ValueError: .* custom code"):
        PromptTokens(read_allow_list([f"mine={folder}"])["mine"])
    assert not ran.exists()


def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED["toon-64"], folder, ignore=shutil.ignore_patterns("sets", "*.safetensors"))
    (folder / "tokenizer" / "tokenizer.json").write_text("{")
    with pytest.raises(CatalogError, match=r"mine: .*/tokenizer holds no tokenizer"):
        PromptTokens(read_allow_list([f"mine={folder}"])["mine"])


def test_tokens_are_counted_without_marks_and_without_cutting(tokens: PromptTokens) -> None:
    assert tokens.limit == 38
    assert tokens.count("") == 0
    one = tokens.count("hat")
    assert tokens.count("hat " * 500) == 500 * one
    assert tokens.count("a" * 10_000) > tokens.limit


def test_a_prompt_of_the_greatest_length_just_fits_the_text_encoder(toon: BaseModelEntry, tokens: PromptTokens) -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(toon.folder / "tokenizer", local_files_only=True)
    longest = next(
        "a " * words for words in range(toon.max_prompt_tokens, 0, -1) if tokens.count("a " * words) == tokens.limit
    )
    assert len(tokenizer(longest).input_ids) == tokenizer.model_max_length
