"""The page on families says of each what its traits say."""

import re
from pathlib import Path

import pytest

from base_models.traits import FAMILIES
from base_models.traits.family_traits import FamilyTraits

PAGE = Path(__file__).parents[3] / "docs" / "families.md"
# What published tokenizers say of themselves.
LONGEST = {"StableDiffusionPipeline": 77, "StableDiffusionXLPipeline": 77, "FluxPipeline": 512}


def rows(pipeline: str) -> list[list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines()]
    return [row for row in cells if len(row) == 7 and row[1] == f"`{pipeline}`"]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.tag)
def test_a_familys_rows_are_true(family: FamilyTraits) -> None:
    found = rows(family.pipeline)
    assert found, f"{PAGE.name} has no row for {family.pipeline}"
    tokens = family.longest_prompt(LONGEST.get(family.pipeline, 131072))
    for row in found:
        assert re.match(r"\d+", row[3])[0] == str(tokens)  # type: ignore[index]
        assert row[5].startswith("yes" if len(family.adaptable) > 1 else "no")
        assert row[6] == family.training_weights


def test_no_family_is_promised_that_is_not_there() -> None:
    promised = set(re.findall(r"`(\w+Pipeline)`", PAGE.read_text()))
    assert promised == set(FAMILIES)
