"""Tokenizers of the classes that base models have, over a handful of words: real vocabularies are not at hand.

What depends on a tokenizer's class is the same: its marks, how it fills up, its chat template.
"""

from collections.abc import Sequence
from itertools import accumulate

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, Qwen2TokenizerFast, T5TokenizerFast

_WORDS = (
    *("a", "picture", "of", "sks", "person", "cat", "with", "red", "hat"),
    *("blue", "street", "happy", "sad", "neutral"),
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789,."


def t5_tokenizer(longest: int) -> PreTrainedTokenizerBase:
    """SentencePiece's unigrams, an end mark, no mark at the beginning."""
    pieces = ["<pad>", "</s>", "<unk>", *(f"▁{word}" for word in _WORDS), "▁", *_LETTERS]
    built = Tokenizer(models.Unigram([(piece, -float(place)) for place, piece in enumerate(pieces)], unk_id=2))
    built.pre_tokenizer = pre_tokenizers.Metaspace()
    built.decoder = decoders.Metaspace()
    built.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return T5TokenizerFast(tokenizer_object=built, extra_ids=0, model_max_length=longest)


T5_WORDS = 3 + len(_WORDS) + 1 + len(_LETTERS)
"""How many tokens `t5_tokenizer` knows."""


_QWEN_MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
# What Qwen3's own template makes of messages with a role and a text; it can do more.
_QWEN_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""


def qwen_tokenizer(longest: int, words: Sequence[str] = ()) -> PreTrainedTokenizerBase:
    """Qwen3's: byte-level pairs, no mark at either end, a chat template in which thinking can be switched off.

    words: more that are one token each, where those before leave their letters alone.
    """
    known = (*words, *_WORDS)
    # Long ones first: what is merged first is what stays whole.
    whole = [*words, *sorted(("user", "assistant", *_WORDS), key=len, reverse=True)]
    # Written as bytes are, a space is Ġ and a new line Ċ.
    within = [pair for piece in whole for pair in zip(accumulate(piece), piece[1:], strict=False)]
    merges = dict.fromkeys([*within, *(("Ġ", word) for word in known), ("Ċ", "Ċ")])
    pieces = dict.fromkeys([*sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)])
    built = Qwen2TokenizerFast(
        vocab={piece: place for place, piece in enumerate(pieces)},
        merges=list(merges),
        eos_token="<|im_end|>",
        model_max_length=longest,
    )
    built.add_tokens([AddedToken(mark, special=mark.startswith("<|"), normalized=False) for mark in _QWEN_MARKS])
    built.chat_template = _QWEN_TEMPLATE
    return built


QWEN_WORDS = len(qwen_tokenizer(512))
"""How many tokens `qwen_tokenizer` knows."""
