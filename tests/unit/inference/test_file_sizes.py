"""The bound on an image's file, held against the worst pictures there are."""

import numpy as np
import pytest
from numpy.typing import NDArray

from inference_service.delivery import FileFormat, most_bytes
from inference_service.generation import ImageTask, Prompt
from inference_service.image_file import Provenance, encode
from tests.unit.inference.quick_requests import quick_request

SIDE = 512


def _worst_pictures() -> list[NDArray[np.uint8]]:
    """Noise; random saturated colours; the same in blocks of four, which is what colour subsampling finds hardest."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 2, (SIDE // 2, SIDE // 2, 3), dtype=np.uint8) * 255
    return [
        random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8),
        random.integers(0, 2, (SIDE, SIDE, 3), dtype=np.uint8) * 255,
        blocks.repeat(2, axis=0).repeat(2, axis=1),
    ]


@pytest.mark.parametrize("file_format", ["png", "webp", "jpeg"])
def test_no_file_is_longer_than_its_bound(file_format: FileFormat) -> None:
    # The longest texts that a request can hold, of characters that take four bytes.
    text = "\N{PILE OF POO}" * 10_000
    request = quick_request(1, prompts=(Prompt(text, (1,)),), negative_prompt=text)
    provenance = Provenance(request, ImageTask(0, 0, 1), "d" * 64, ())
    longest = max(len(encode(pixels_HWC, file_format, provenance)) for pixels_HWC in _worst_pictures())
    bound = most_bytes(file_format, SIDE, SIDE)
    assert longest <= bound
    # A bound that says nothing would refuse what fits.
    assert bound < 1.8 * longest
