"""How good a model folder is, in figures: measured on renders that no training saw, kept beside the weights as JSON.

figures.json also names the weights that it was measured on, so figures of other weights are found out.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from base_models.catalog import describe
from base_models.families.stable_diffusion import StableDiffusion
from base_models.likeness.attributes import AttributeClassifier
from base_models.likeness.recipe.attributes import accuracy
from base_models.toon_64.recipe import autoencoder, obedience
from base_models.toon_64.recipe.captions import caption
from base_models.toon_64.recipe.pictures import SIZE, render

# Datasets are seeds; 1 is what everything is trained on.
UNSEEN_DATASET, PROMPTS_DATASET = 2, 5
FILE = "figures.json"

# What the same weights may differ by on another machine. Renders and noise are the same bytes everywhere, but floats
# are summed in another order. That moves PSNR by less than 0.001 dB, and now and then turns a picture whose reading was
# a near thing: in twenty denoising steps a rounding error grows into another pixel, hardly ever into another shirt.
_PSNR_DB = 0.05
_OBEDIENCE_SHARE, _OBEDIENCE_PROMPTS = 0.02, 2
_ACCURACY_SHARE = 0.005

Counts = dict[str, list[int]]


@dataclass(frozen=True)
class Figures:
    """Everything that is measured of a model. Speed is the machine's too, so it is never compared."""

    weights: str
    """SHA-256 (hex) over the weight files."""
    training: dict[str, str]
    """What the weights saw, as whoever trained them wrote it down."""
    unseen_pictures: int
    autoencoder_psnr_db: dict[str, float]
    """By style, and `all`."""
    classifier_accuracy: dict[str, float]
    """By attribute: how far the judge of obedience can be trusted."""
    obedience_by_attribute: Counts
    """[right, judged] by attribute; see obedience.Obedience."""
    obedience_by_style: Counts
    seconds_alone: float
    """A picture by itself, with the default settings, on `cpu_threads` or a GPU."""
    seconds_in_groups: float
    """A picture where `obedience.GROUP` are made at once."""
    device: str

    def write(self, folder: Path) -> None:
        """Put figures.json into the model's folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Figures":
        """Figures of a model's folder. Raises OSError, ValueError or TypeError where there are none."""
        return cls(**json.loads((folder / FILE).read_text()))


def measure(
    model: Path,
    data: Path,
    training: dict[str, str],
    report: Callable[[str], None],
    device: torch.device,
    judge: AttributeClassifier,
    unseen: int = 1000,
    prompts: int = 512,
) -> Figures:
    """Measure the model in a folder; `data` is where renders are kept. A few minutes on two CPU cores."""
    base = StableDiffusion(describe("toon-64", model), device)
    report(f"drawing {unseen} unseen pictures and {prompts} prompts")
    pictures, asked = render(data, UNSEEN_DATASET, unseen, 1), render(data, PROMPTS_DATASET, prompts, 1)
    report("decoding and reading the unseen pictures")
    psnr = autoencoder.psnr_by_style(base.pipeline.vae, pictures)
    read = accuracy(judge, pictures)
    report(f"generating {prompts} pictures")
    obeyed = obedience.measure(base, judge, asked.shown, report)
    return Figures(
        weights=base.digest,
        training=training,
        unseen_pictures=unseen,
        autoencoder_psnr_db={style: round(value, 3) for style, value in psnr.items()},
        classifier_accuracy={name: round(value, 4) for name, value in read.items()},
        obedience_by_attribute={name: list(counts) for name, counts in obeyed.by_attribute.items()},
        obedience_by_style={name: list(counts) for name, counts in obeyed.by_style.items()},
        seconds_alone=round(_seconds_alone(base, caption(asked.shown[0])), 3),
        seconds_in_groups=round(obeyed.seconds_per_picture, 3),
        device=torch.cuda.get_device_name() if device.type == "cuda" else _threads(),
    )


def differences(recorded: Figures, measured: Figures) -> list[str]:
    """One line for each figure that is off by more than rounding explains; empty where the record is true."""
    lines = []
    if recorded.weights != measured.weights:
        lines.append(f"weights: the record is of {recorded.weights[:12]}, these are {measured.weights[:12]}")
    for title, before, after, allowed in (
        ("PSNR (dB)", recorded.autoencoder_psnr_db, measured.autoencoder_psnr_db, _PSNR_DB),
        ("classifier", recorded.classifier_accuracy, measured.classifier_accuracy, _ACCURACY_SHARE),
    ):
        lines += [f"{title} {name}: the figures are of different things" for name in before.keys() ^ after.keys()]
        for name in before.keys() & after.keys():
            if abs(before[name] - after[name]) > allowed:
                lines.append(f"{title} {name}: recorded {before[name]}, measured {after[name]}, allowed {allowed}")
    for title, first, second in (
        ("obedience", recorded.obedience_by_attribute, measured.obedience_by_attribute),
        ("obedience in", recorded.obedience_by_style, measured.obedience_by_style),
    ):
        lines += [f"{title} {name}: the figures are of different things" for name in first.keys() ^ second.keys()]
        for name in first.keys() & second.keys():
            (right, judged), (now_right, now_judged) = first[name], second[name]
            slack = max(_OBEDIENCE_PROMPTS, int(_OBEDIENCE_SHARE * judged))
            if judged != now_judged or abs(right - now_right) > slack:
                lines.append(
                    f"{title} {name}: recorded {right} of {judged}, measured {now_right} of {now_judged}, "
                    f"allowed {slack} more or fewer"
                )
    return sorted(lines)


def table(recorded: Figures, measured: Figures) -> str:
    """Both, side by side."""
    rows = [("", "recorded", "measured")]
    for title, before, after in (
        ("PSNR", recorded.autoencoder_psnr_db, measured.autoencoder_psnr_db),
        ("classifier", recorded.classifier_accuracy, measured.classifier_accuracy),
    ):
        rows += [(f"{title}, {name}", f"{before.get(name, float('nan')):.3f}", f"{after[name]:.3f}") for name in after]
    for first, second in (
        (recorded.obedience_by_attribute, measured.obedience_by_attribute),
        (recorded.obedience_by_style, measured.obedience_by_style),
    ):
        rows += [(f"obedience, {name}", _of(first.get(name)), _of(second[name])) for name in second]
    for name in ("seconds_alone", "seconds_in_groups", "device"):
        rows.append((name.replace("_", " "), str(getattr(recorded, name)), str(getattr(measured, name))))
    return "\n".join(f"{name:<28} {before:>16} {after:>16}" for name, before, after in rows)


def _of(counts: list[int] | None) -> str:
    return "-" if counts is None else f"{counts[0]} of {counts[1]}"


def _seconds_alone(base: StableDiffusion, prompt: str, repeats: int = 3) -> float:
    times = []
    for seed in range(repeats):
        started = time.monotonic()
        with torch.inference_mode():
            base.generate([prompt], [seed], SIZE)
        times.append(time.monotonic() - started)
    return min(times)


def _threads() -> str:
    return f"{torch.get_num_threads()} of {os.cpu_count()} CPU cores"
