"""Tokenizers of the classes that base models have, over a handful of words: real vocabularies are not at hand.

What depends on a tokenizer's class is the same: its marks, how it fills up, its chat template.
"""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, T5TokenizerFast

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
