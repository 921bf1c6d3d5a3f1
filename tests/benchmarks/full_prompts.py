"""Prompts on the meta device, where nobody can say how many of their tokens there are: all that they are filled up to.

Its one rule: what is counted with them is the most that a family's longest prompt makes of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from torch.fx.experimental import _config
from transformers import masking_utils

from base_models.families import qwen_image, z_image
from base_models.family import Conditioning


@contextmanager
def full_prompts() -> Iterator[None]:
    """Masks of tokens are taken for full ones, where rows are picked by them and where they are counted."""
    with (
        patch.object(_config, "meta_nonzero_assume_all_nonzero", True),
        patch.object(masking_utils, "fast_all", lambda _mask: True),
        patch.object(qwen_image, "token_counts", _all),
        patch.object(z_image, "token_counts", _all),
    ):
        yield


def _all(conditioning: Conditioning) -> list[int]:
    batch, tokens = conditioning["is_token_BT"].shape
    return [tokens] * batch
