"""Which judge looks at the pictures of a base model. Without one there is no evaluation; none is ever invented."""

from pathlib import Path

import torch

from base_models.catalog import BaseModelEntry
from base_models.likeness.judge import Judge


def judge_for(
    entry: BaseModelEntry, device: torch.device, dinov2_folder: Path | None, clip_folder: Path | None
) -> Judge | None:
    """Load the judge of a base model: its own where it has one, else the networks that the operator provides.

    Loaded for one evaluation and dropped after it, so that trainings have the memory. Raises ModelFolderError.
    """
    if entry.judge == "toon":
        from base_models.likeness.toon_judge import load_toon_judge

        return load_toon_judge(device)
    if dinov2_folder or clip_folder:
        # Imported here, because transformers' models are slow to import and most trainings need none of these.
        from base_models.likeness.feature_judge import FeatureJudge

        return FeatureJudge(dinov2_folder, clip_folder, device)
    return None
