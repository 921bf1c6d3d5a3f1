"""Counting the tokens of prompts as a base model's text encoders will, without torch and without cutting anything."""

from base_models.catalog import BaseModelEntry


class PromptTokens:
    """Token counts for one base model. Making the first in a process takes about two seconds."""

    def __init__(self, entry: BaseModelEntry) -> None:
        # transformers is slow to import, and a process that counts nothing need not wait for it.
        from transformers import AutoTokenizer

        self.limit = entry.max_prompt_tokens
        self._tokenizers = [
            AutoTokenizer.from_pretrained(folder, local_files_only=True) for folder in entry.tokenizer_folders
        ]

    def count(self, prompt: str) -> int:
        """Tokens of a prompt, the begin and end marks not counted; where encoders differ, of the one with the most."""
        return max(
            len(tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False).input_ids)
            for tokenizer in self._tokenizers
        )
