"""Captions say what the renderer chose, and every word of them is one token."""

from pathlib import Path
from random import Random

import pytest
from transformers import CLIPTokenizer

from base_models.catalog import BUNDLED
from base_models.toon_64.recipe import tokenizer
from base_models.toon_64.recipe.captions import caption
from base_models.toon_64.recipe.denoiser import varied_caption
from base_models.toon_64.recipe.pictures import Shown

VIEW = {"background": "teal", "size": None, "tilt": None, "mirrored": False}
MICAH: Shown = VIEW | {
    "style": "micah",
    "hair": "short",
    "hairColor": "red",
    "hat": "none",
    "hatColor": None,
    "skin": "tan",
    "clothes": "yellow",
    "glasses": "sunglasses",
    "beard": "beard",
    "extras": ["earrings"],
    "expression": "happy",
}
PERSONAS: Shown = VIEW | {
    "style": "personas",
    "hair": None,
    "hairColor": None,
    "hat": "cap",
    "hatColor": "pink",
    "skin": "dark",
    "clothes": "gray",
    "glasses": "none",
    "beard": "none",
    "extras": [],
    "expression": "surprised",
    "size": "close-up",
    "tilt": "tilted left",
    "mirrored": True,
}
THUMBS: Shown = VIEW | {"style": "thumbs", "body": "purple", "extras": [], "expression": "neutral"}
BALD: Shown = VIEW | {"style": "peeps", "hair": "bald", "hairColor": None, "skin": "light", "extras": []}
SHOWN = (MICAH, PERSONAS, THUMBS, BALD)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (
            MICAH,
            "a picture of a micah character, short red hair, tan skin, sunglasses, beard, earrings, happy, "
            "yellow shirt, teal background",
        ),
        (
            PERSONAS,
            "a picture of a personas character, dark skin, pink cap, surprised, gray shirt, teal background, close-up, "
            "tilted left, mirrored",
        ),
        (THUMBS, "a picture of a thumbs character, purple body, neutral, teal background"),
        (BALD, "a picture of a peeps character, bald, light skin, teal background"),
    ],
)
def test_a_caption_says_what_can_be_seen_and_nothing_else(shown: Shown, expected: str) -> None:
    assert caption(shown) == expected


def test_captions_in_training_say_some_of_it_or_nothing() -> None:
    random = Random(0)
    captions = [varied_caption(MICAH, random) for _ in range(400)]
    phrases = set(caption(MICAH).split(", ")[1:])
    assert 20 < captions.count("") < 60
    assert {said.partition(",")[0] for said in captions if said} == {
        "a picture of a micah character",
        "micah character",
        "a picture of a character",
        "a character",
    }
    assert all(set(said.split(", ")[1:]) <= phrases for said in captions)
    assert len(set(captions)) > 80


def test_the_same_chance_gives_the_same_caption() -> None:
    assert varied_caption(MICAH, Random(5)) == varied_caption(MICAH, Random(5))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    """A tokenizer for the words of the committed one, saved and read again."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.build([caption(shown) for shown in SHOWN] + committed_words()).save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def committed() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(BUNDLED["toon-64"] / "tokenizer")


def committed_words() -> list[str]:
    whole = [token.removesuffix("</w>") for token in committed().get_vocab() if token.endswith("</w>")]
    return [word for word in whole if len(word) > 1 and word.isascii() and word.isalpha()]


def test_every_word_is_one_token(built: CLIPTokenizer) -> None:
    words = tokenizer.words([caption(shown) for shown in SHOWN] + committed_words() + [tokenizer.EVERYDAY])
    assert len(words) > 90
    assert {word: built.tokenize(word) for word in words if built.tokenize(word) != [f"{word}</w>"]} == {}


def test_the_committed_tokenizer_knows_every_caption_as_whole_words() -> None:
    known = committed()
    words = tokenizer.words(caption(shown) for shown in SHOWN)
    assert [word for word in words if len(known.tokenize(word)) != 1] == []


def test_a_word_that_repeats_its_letters_is_one_token() -> None:
    # Merging `a n` everywhere leaves `an an a s`, so merges from left to right alone would never join it.
    assert tokenizer.build(["ananas banana"], everyday="").tokenize("banana ananas") == ["banana</w>", "ananas</w>"]


def test_an_unknown_word_stays_apart_from_every_known_one(built: CLIPTokenizer) -> None:
    pieces = built.tokenize("sks zwx")
    assert len(pieces) > 2
    assert not {piece for piece in pieces if len(piece.removesuffix("</w>")) > 2}


def test_a_caption_is_framed_and_padded_to_the_length_that_the_text_encoder_has(built: CLIPTokenizer) -> None:
    tokens = built(caption(MICAH), padding="max_length").input_ids
    assert len(tokens) == built.model_max_length == tokenizer.MAX_TOKENS
    assert tokens[0] == built.bos_token_id
    assert tokens[-1] == built.pad_token_id == built.eos_token_id
    assert built.decode(tokens, skip_special_tokens=True).replace(" ,", ",") == caption(MICAH)


def test_the_order_of_the_captions_does_not_matter(built: CLIPTokenizer, tmp_path: Path) -> None:
    again = tokenizer.build(committed_words()[::-1] + [caption(shown) for shown in reversed(SHOWN)])
    assert again.get_vocab() == built.get_vocab()
