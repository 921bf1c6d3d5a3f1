"""Every family reads prompts whole, and each as if it were alone."""

from typing import Any

import torch

from base_models.catalog import BaseModelEntry
from base_models.prompt_tokens import PromptTokens


def test_the_longest_prompt_is_read_to_its_last_word(entry: BaseModelEntry, base: Any) -> None:
    tokens = PromptTokens(entry)
    longest = "cat" + " hat" * (entry.max_prompt_tokens - 1)
    prompts = [longest, longest.removesuffix("hat") + "cat", longest.removesuffix(" hat")]
    assert [tokens.count(prompt) for prompt in prompts] == [tokens.limit, tokens.limit, tokens.limit - 1]
    with torch.no_grad():
        read = base.encode_prompts(prompts)
    assert any(not torch.equal(rows[0], rows[1]) for rows in read.values())
    if "is_token_BT" in read:
        # Nor is a template cut that ends after it.
        lengths = read["is_token_BT"].sum(dim=1).tolist()
        assert lengths[0] == lengths[1] == lengths[2] + 1


def test_what_a_prompt_becomes_is_the_same_alone_and_beside_a_longer_one(base: Any) -> None:
    prompts = ["a cat", "a picture of sks person" + ", blue street" * 9, ""]
    with torch.no_grad():
        together = base.encode_prompts(prompts)
        for place, prompt in enumerate(prompts):
            for name, alone in base.encode_prompts([prompt]).items():
                assert torch.allclose(alone[0].float(), together[name][place].float(), atol=1e-5), name
