"""The tokenizer: CLIP's byte-pair encoding with merges chosen so that every word of the captions is one token.

A word it does not know costs about a token a letter: a trigger word such as `sks` stays apart from all it knows.
"""

import re
from collections.abc import Iterable
from itertools import pairwise

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

MAX_TOKENS = 40
"""The longest prompt in tokens, begin and end marks included; the longest caption has 36."""

EVERYDAY = (
    "a an the of with wearing in and style avatar character person man woman girl boy robot monster picture photo "
    "image drawing cute new my face eyes mouth hair skin background shirt body left right up down big very red orange "
    "yellow green teal blue purple pink black white gray brown blonde light tan dark short long blush mask"
)
"""Words that people write into prompts, of which some are in no caption."""

_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"


def build(captions: Iterable[str], everyday: str = EVERYDAY) -> CLIPTokenizer:
    """The tokenizer in which each word of the captions and each everyday word is one token."""
    merges = _merges(sorted(words(captions) | words([everyday])))
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + _WORD_END for letter in letters), *(first + second for first, second in merges)]
    # Two merges may make the same token.
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*tokens, _BEGIN, _END]))}
    return CLIPTokenizer(vocabulary, list(merges), model_max_length=MAX_TOKENS)


def words(captions: Iterable[str]) -> set[str]:
    """The words of some captions, as CLIP splits them: runs of letters, in lower case."""
    return {word for caption in captions for word in re.findall("[a-z]+", caption.lower())}


def _merges(all_words: list[str]) -> dict[tuple[str, str], int]:
    """Merges by rank. A merge that is added last is applied last, so a word that has become one token stays one."""
    ranks: dict[tuple[str, str], int] = {}
    for word in all_words:
        while len(symbols := _encode(word, ranks)) > 1:
            ranks[symbols[0], symbols[1]] = len(ranks)
    return ranks


def _encode(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding of one word (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909, algorithm 1)."""
    symbols = [*word[:-1], word[-1] + _WORD_END]
    while known := [pair for pair in pairwise(symbols) if pair in ranks]:
        best, merged = min(known, key=ranks.__getitem__), []
        while symbols:
            taken = 2 if tuple(symbols[:2]) == best else 1
            merged.append("".join(symbols[:taken]))
            symbols = symbols[taken:]
        symbols = merged
    return symbols
