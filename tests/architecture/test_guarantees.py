"""docs/guarantees.md promises nothing that no test tries to break."""

import re
from pathlib import Path

from tests.named_tests import exists, references

PAGE = Path(__file__).parents[2] / "docs" / "guarantees.md"
PROMISED, NOT_PROMISED = PAGE.read_text().split("\n## Not promised\n")


def sentences() -> list[str]:
    """The promises: each list entry above the last section, on one line."""
    entries = re.split(r"\n(?=- )", PROMISED)[1:]
    return [" ".join(re.split(r"\n(?=\n|#)", entry)[0].split()) for entry in entries]


def test_every_sentence_names_a_test_that_exists() -> None:
    assert len(sentences()) > 20
    unproven = [sentence for sentence in sentences() if not references(sentence)]
    assert unproven == []
    missing = [f"{file}::{name}" for file, name in references(PROMISED) if not exists(file, name)]
    assert missing == []


def test_what_is_not_promised_is_said() -> None:
    assert NOT_PROMISED.count("\n- ") >= 5
