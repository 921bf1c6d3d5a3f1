"""Draws the six sets again, as PNG with a caption each: `python -m base_models.toon_64.recipe.sets FOLDER`."""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from base_models.toon_64.recipe.pictures import SIZE, run_renderer


def write_sets(folder: Path) -> None:
    """Write {set}/{train,unseen,strangers}/{00..15}.{png,txt}. The same call writes the same files."""
    with tempfile.TemporaryDirectory() as raw:
        run_renderer("sets.mjs", raw)
        for pixels in sorted(Path(raw).glob("*.rgb")):
            name, part = pixels.stem.split(".")
            target = folder / name / part
            target.mkdir(parents=True, exist_ok=True)
            pictures_NHWC = np.fromfile(pixels, np.uint8).reshape(-1, SIZE, SIZE, 3)
            captions = pixels.with_suffix(".txt").read_text().splitlines()
            for index, (picture_HWC, caption) in enumerate(zip(pictures_NHWC, captions, strict=True)):
                Image.fromarray(picture_HWC).save(target / f"{index:02d}.png")
                (target / f"{index:02d}.txt").write_text(caption)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write_sets(parser.parse_args().folder)
