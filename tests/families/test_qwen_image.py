"""What is Qwen-Image's alone: an autoencoder that remembers the frame before, in itself."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import torch

from base_models.catalog import describe
from base_models.loading import load_base_model
from tests.families.qwen_image import write_tiny_qwen_image

# How long a thread waits in vain for another that keeps out of its way.
_WAIT_S = 0.2


def test_pictures_that_are_decoded_side_by_side_do_not_mix(tmp_path: Path) -> None:
    write_tiny_qwen_image(tmp_path)
    base: Any = load_base_model(describe("qwen-image", tmp_path), torch.device("cpu"))
    latents_BCHW = torch.randn(2, *base.latent_shape(64, 64), generator=torch.Generator().manual_seed(0))

    def decoded(latents_CHW: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return base.decode_latents(latents_CHW[None])[0]

    alone = [decoded(latents_CHW) for latents_CHW in latents_BCHW]
    between = Barrier(2)

    def meet(*_: object) -> None:
        with suppress(BrokenBarrierError):
            between.wait(_WAIT_S)

    # Where it has forgotten the last picture, and not yet begun with the next.
    base.pipeline.vae.post_quant_conv.register_forward_hook(meet)
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(decoded, latents_BCHW))
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(together, alone, strict=True))
