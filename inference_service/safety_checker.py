"""The checker that Stable Diffusion came with: CLIP's cosines to concepts that must not be shown, against thresholds.

Rando et al. 2022, https://arxiv.org/abs/2210.04610, describe it. Its one rule here: only its verdict is used. Left to
itself it paints the pictures that it refuses black.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors import SafetensorError
from transformers import CLIPImageProcessorPil
from transformers.utils import logging as transformers_logging

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


class CheckerUnusable(Exception):
    """The folder holds no checker that could be relied on; the text says why."""


class SafetyChecker:
    """See Checker. Runs on the GPU where there is one."""

    def __init__(self, folder: Path) -> None:
        """Read a local folder, no pickle and nothing from elsewhere. Raises CheckerUnusable."""
        transformers_logging.disable_progress_bar()
        if not any((folder / name).is_file() for name in _WEIGHTS):
            raise CheckerUnusable(f"there is no {_WEIGHTS[0]}; other kinds of weight files are not read")
        try:
            named = json.loads((folder / "config.json").read_text())["architectures"]
            if named != [StableDiffusionSafetyChecker.__name__]:
                raise CheckerUnusable(f"found a {named}; needed is a {StableDiffusionSafetyChecker.__name__}")
            self._prepare = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
            self._model, found = StableDiffusionSafetyChecker.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise CheckerUnusable(f"it cannot be read: {error!r}") from error
        # What a file lacks is drawn at random, and its thresholds would then refuse nothing; NaN compares to nothing.
        if missing := sorted(found["missing_keys"]):
            raise CheckerUnusable(f"its weights lack {', '.join(missing[:5])}")
        if not all(tensor.isfinite().all() for tensor in self._model.state_dict().values()):
            raise CheckerUnusable("its weights are not finite")
        self._model.requires_grad_(False).eval().to("cuda" if torch.cuda.is_available() else "cpu")
        # It would announce black pictures.
        logging.getLogger(StableDiffusionSafetyChecker.__module__).setLevel(logging.ERROR)

    def refuses(self, pictures: "Sequence[NDArray[numpy.uint8]]") -> list[bool]:
        prepared_BCHW = self._prepare(list(pictures), return_tensors="pt")["pixel_values"].to(self._model.device)
        # What it is to paint black are these, of no pixels.
        stand_ins = [torch.empty(0) for _ in pictures]
        _, refused = self._model(clip_input=prepared_BCHW, images=stand_ins)
        return [bool(verdict) for verdict in refused]
