"""Counting the tokens of prompts as a base model's text encoders will, without torch and without cutting anything."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from base_models.catalog import BaseModelEntry, CatalogError


class PromptTokens:
    """Token counts for one base model. Making the first in a process takes about two seconds."""

    def __init__(self, entry: BaseModelEntry) -> None:
        """Read the tokenizers. Raises CatalogError where one cannot be read."""
        self.limit = entry.max_prompt_tokens
        self._tokenizers = [_read(entry.name, folder) for folder in entry.tokenizer_folders]

    def count(self, prompt: str) -> int:
        """Tokens of a prompt, the begin and end marks not counted; where encoders differ, of the one with the most."""
        return max(
            len(tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False).input_ids)
            for tokenizer in self._tokenizers
        )


def prompt_tokens(entries: Iterable[BaseModelEntry]) -> dict[str, PromptTokens]:
    """Of each base model, by name. Raises CatalogError."""
    return {entry.name: PromptTokens(entry) for entry in entries}


def _read(name: str, folder: Path) -> Any:
    # transformers is slow to import, and a process that counts nothing need not wait for it.
    from transformers import AutoTokenizer

    try:
        # Said, because where it is not, code in the folder is run once somebody at a terminal says yes.
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    # Whatever the library stumbles over in files that are missing or damaged.
    except Exception as error:
        raise CatalogError(f"{name}: {folder} holds no tokenizer: {type(error).__name__}: {error}") from error
