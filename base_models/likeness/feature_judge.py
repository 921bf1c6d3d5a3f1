"""A judge for any base model, made of networks that the operator provides: DINOv2 sees the subject, CLIP the scene.

DINOv2: Oquab et al. 2023, https://arxiv.org/abs/2304.07193. CLIP: Radford et al. 2021, https://arxiv.org/abs/2103.00020.
How DreamBooth's authors use both: Ruiz et al. 2022, https://arxiv.org/abs/2208.12242, section 4.1.

Shapes: B batch, S scenes, C channels, H/W height and width, D features. Pixels are in [-1, 1].
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize
from transformers import CLIPModel, CLIPTokenizer, Dinov2Model
from transformers.utils import logging as transformers_logging

from base_models.likeness.model_folder import Preparation, read_model_folder

# For persons and things alike: eight places, four manners. Each is told apart from all others by a glance.
SCENES = (
    ", on a sandy beach",
    ", in deep snow",
    ", in a green forest",
    ", in a city street at night",
    ", in a kitchen",
    ", in front of a bookshelf",
    ", in a field of sunflowers",
    ", under water",
    ", as an oil painting",
    ", as a pencil drawing",
    ", as a stone statue",
    ", as a black and white photograph",
)
_GROUP = 16


class FeatureJudge:
    """See Judge. Without DINOv2 it tells neither identity nor appearance, without CLIP no obedience."""

    scenes = SCENES

    def __init__(self, dinov2_folder: Path | None, clip_folder: Path | None, device: torch.device) -> None:
        """Load what there is, from local transformers folders. Raises ModelFolderError."""
        transformers_logging.disable_progress_bar()
        self._dinov2 = _Dinov2(dinov2_folder, device) if dinov2_folder else None
        self._clip = _Clip(clip_folder, device) if clip_folder else None
        self.name = "+".join(model.name for model in (self._dinov2, self._clip) if model)

    def identity(self, pixels_BCHW: Tensor, training_NCHW: Tensor) -> Tensor | None:
        return self._dinov2.features(pixels_BCHW) if self._dinov2 else None

    def appearance(self, pixels_BCHW: Tensor) -> Tensor | None:
        return self._dinov2.features(pixels_BCHW) if self._dinov2 else None

    def obedience(self, pixels_BCHW: Tensor, scenes: Sequence[str]) -> float | None:
        """Share of the pictures to which the scene that was asked is the nearest (by cosine) of all of this judge."""
        if self._clip is None:
            return None
        cosines_BS = self._clip.cosines(pixels_BCHW, [f"a picture{scene}" for scene in self.scenes])
        if not torch.isfinite(cosines_BS).all():
            return None
        asked_B = torch.tensor([self.scenes.index(scene) for scene in scenes], device=cosines_BS.device)
        return (cosines_BS.argmax(dim=1) == asked_B).float().mean().item()


class _Dinov2:
    def __init__(self, folder: Path, device: torch.device) -> None:
        self._preparation = read_model_folder(folder, "dinov2")
        self._model = Dinov2Model.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        self._model.requires_grad_(False).eval().to(device)
        # Width and patch size tell the published sizes apart, whose numbers do not compare.
        self.name = f"dinov2-{self._model.config.hidden_size}/{self._model.config.patch_size}"

    @torch.no_grad()
    def features(self, pixels_BCHW: Tensor) -> Tensor:
        """Unit features_BD: the class token after the last layer norm."""
        prepared_BCHW = prepared(pixels_BCHW.to(self._model.device), self._preparation)
        return normalize(self._model(prepared_BCHW).last_hidden_state[:, 0], dim=1)


class _Clip:
    def __init__(self, folder: Path, device: torch.device) -> None:
        self._preparation = read_model_folder(folder, "clip")
        self._tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = CLIPModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        self._model.requires_grad_(False).eval().to(device)
        vision = self._model.config.vision_config
        self.name = f"clip-{vision.hidden_size}/{vision.patch_size}"

    @torch.no_grad()
    def cosines(self, pixels_BCHW: Tensor, texts: Sequence[str]) -> Tensor:
        """cosines_BS between B pictures and S texts."""
        tokens = self._tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(self._model.device)
        texts_SD = normalize(self._model.get_text_features(**tokens).pooler_output, dim=1)
        pictures_BD = torch.cat([self._pictures(group) for group in pixels_BCHW.split(_GROUP)])
        return pictures_BD @ texts_SD.T

    def _pictures(self, pixels_BCHW: Tensor) -> Tensor:
        prepared_BCHW = prepared(pixels_BCHW.to(self._model.device), self._preparation)
        return normalize(self._model.get_image_features(prepared_BCHW).pooler_output, dim=1)


def prepared(pixels_BCHW: Tensor, preparation: Preparation) -> Tensor:
    """Square pictures as a model was trained to see them: resized, the middle cut out, RGB standardised."""
    side, cut = preparation.resized, preparation.cropped
    resized_BCHW = interpolate(pixels_BCHW.float(), (side, side), mode=preparation.filter, antialias=True)
    start = (side - cut) // 2
    # Bicubic overshoots; files of pictures could not.
    middle_BCHW = ((resized_BCHW + 1) / 2).clamp(0, 1)[:, :, start : start + cut, start : start + cut]
    mean_C11 = torch.tensor(preparation.mean, device=pixels_BCHW.device).view(3, 1, 1)
    std_C11 = torch.tensor(preparation.std, device=pixels_BCHW.device).view(3, 1, 1)
    return (middle_BCHW - mean_C11) / std_C11
