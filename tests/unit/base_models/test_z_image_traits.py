"""Which of the two Z-Images a folder holds, from its configuration files."""

import json
from pathlib import Path

import pytest

from base_models.traits.family_traits import Configs
from base_models.traits.z_image import TRAITS


@pytest.mark.parametrize(("shift", "steps", "guidance_scale"), [(3.0, 8, 1.0), (6.0, 50, 5.0)])
def test_the_schedulers_shift_tells_turbo_from_the_base(
    tmp_path: Path, shift: float, steps: int, guidance_scale: float
) -> None:
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps({"shift": shift}))
    preset = TRAITS.preset(Configs(tmp_path))
    assert (preset.generation.steps, preset.generation.guidance_scale) == (steps, guidance_scale)
