"""Counts what a family's networks hold while they train, draw, encode and decode, on any machine: no memory is taken.

usage: python -m tests.benchmarks.activation_memory --family TAG [--folder FOLDER] [--only-halves] [--write]
                                                  [--blocks FIELD ...]

The family's own code runs round its published architecture on torch's meta device, forward and backward, with the
trainer's low-rank layers, its losses and a GPU's autocast and flash attention (`as_on_cuda.py`); every storage is
counted while it lives (`live_bytes.py`). Each figure is the line through two sizes and one or two numbers of pictures.

--family: a tag of `published_shapes.py`. --folder: a diffusers folder, or only its configs and tokenizers, of a family
that has no entry there. --only-halves: not float32, which takes as long again. --write: into
`base_models/activations/`, for the estimates of trainings. --blocks: fields of the transformer's configuration that say
how many blocks of a kind there are, or which are of it. A few are counted, and one more of each kind; every further one
is taken for what that added: blocks of a kind are the same, and a deep network takes long.

What it does not see: workspaces of cuDNN and cuBLAS, what kernels take for themselves, an allocator's waste, DoRA.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from base_models.activation_figures import FOLDER, ActivationFigures, Held, Step
from base_models.catalog import BUNDLED, BaseModelEntry, describe
from base_models.family import BaseModel, Conditioning
from base_models.traits.family_traits import TargetsName
from tests.benchmarks.as_on_cuda import as_on_cuda
from tests.benchmarks.full_prompts import full_prompts
from tests.benchmarks.live_bytes import LiveBytes
from tests.benchmarks.published_shapes import PUBLISHED
from tests.benchmarks.weightless import weightless
from trainer_service.training_config import TrainingConfig, decide
from trainer_service.worker.autocast import accelerator_for
from trainer_service.worker.batches import Draw
from trainer_service.worker.examples import ExampleSet
from trainer_service.worker.losses import losses
from trainer_service.worker.trainee import Trainee

Formats = Mapping[str, torch.dtype | None]
FORMATS: Formats = {"halves": torch.bfloat16, "float32": None}
_RANK = 16
# Of which one is the last, which may differ, and one is in no list.
_FEW = 3
_CPU = torch.device("cpu")
_META = torch.device("meta")
# Alone, a network without weights would be dressed in an optimizer's fused kernels, which this device has not.
_GIVEN = {"rank": _RANK, "optimizer": "prodigy", "precision": "float32"}

Count = Callable[[int, int], int]
"""Bytes with so many pictures of so many pixels a side."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", required=True)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only-halves", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--blocks", nargs="+", default=())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / arguments.family
        if arguments.folder is None:
            PUBLISHED[arguments.family](folder)
        formats = {"halves": torch.bfloat16} if arguments.only_halves else FORMATS
        with full_prompts():
            found = count_by_blocks(describe(arguments.family, folder), formats, arguments.blocks)
        text = found.model_dump_json(indent=1) + "\n"
    if arguments.write:
        (FOLDER / f"{arguments.family}.json").write_text(text)
    else:
        print(text)


def count_by_blocks(entry: BaseModelEntry, formats: Formats, fields: Sequence[str]) -> ActivationFigures:
    """Count everything of a base model, from a few of its blocks where fields name their numbers."""
    path = entry.folder / entry.traits.denoiser / "config.json"
    published = json.loads(path.read_text())
    name = entry.name if entry.name in BUNDLED else entry.architecture().name

    def counted(blocks: Mapping[str, int | list[int]]) -> dict[str, Any]:
        path.write_text(json.dumps(published | blocks))
        return count(describe(entry.name, entry.folder), formats).model_dump()

    few: dict[str, int | list[int]] = {field: _FEW if isinstance(published[field], int) else [0] for field in fields}
    found = least = counted(few)
    for field, blocks in few.items():
        # Of a list that has one block, the next comes to it.
        more, left = (
            (blocks + 1, published[field] - blocks)
            if isinstance(blocks, int)
            else ([*blocks, len(blocks)], len(published[field]) - len(blocks))
        )
        found = _and_more(found, least, counted(few | {field: more}), left)
    return ActivationFigures.model_validate(found | {"counted_on": name})


def _and_more(found: Any, least: Any, one_more: Any, times: int) -> Any:
    if isinstance(found, dict):
        return {name: _and_more(value, least[name], one_more[name], times) for name, value in found.items()}
    return found + times * (one_more - least) if isinstance(found, int | float) else found


def count(entry: BaseModelEntry, formats: Formats) -> ActivationFigures:
    """Count everything of a base model; minutes."""
    base = _weightless(entry)
    prompt = {name: values.detach() for name, values in base.encode_prompts([""]).items()}
    channels, height, _ = base.latent_shape(entry.default_size, entry.default_size)
    steps: dict[TargetsName, dict[str, Step]] = {}
    for targets, layers in entry.traits.targets.items():
        same = next((other for other in steps if entry.traits.targets[other] == layers), None)
        steps[targets] = steps[same] if same else _steps(entry, targets, formats)
    layers = [
        module.weight for module in base.denoiser.modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    ]
    return ActivationFigures(
        counted_on=entry.name if entry.name in BUNDLED else entry.architecture().name,
        inputs=sum(weight.shape[1] for weight in layers),
        parameters=sum(weight.numel() for weight in layers),
        pixels_per_position=entry.default_size // height,
        latent_channels=channels,
        prompt_bytes=sum(values.nbytes for values in prompt.values()),
        steps=steps,
        text_encoders={
            name: _text_encoders(entry, halves) for name, halves in formats.items() if len(entry.traits.adaptable) > 1
        },
        drawing={
            name: _line(entry, base, lambda pictures, size, halves=halves: _drawing(base, pictures, size, halves))
            for name, halves in formats.items()
        },
        encoding=_plane(entry, base, lambda pictures, size: _autoencoding(base, pictures, size, encoding=True)),
        decoding=_plane(entry, base, lambda pictures, size: _autoencoding(base, pictures, size, encoding=False)),
    )


def count_step(
    base: BaseModel, config: TrainingConfig, pictures: int, size: int, halves: torch.dtype | None, device: torch.device
) -> int:
    """The most bytes held during a forward and a backward pass, with what the base model wears."""
    step = prepared_step(base, config, pictures, size, device)
    with as_on_cuda(halves), LiveBytes() as live:
        step()
    return live.peak


def prepared_step(
    base: BaseModel, config: TrainingConfig, pictures: int, size: int, device: torch.device
) -> Callable[[], None]:
    """A forward and a backward pass over empty pictures with empty prompts, which are encoded already."""
    shape = base.latent_shape(size, size)
    rows = _conditioning(base, pictures)
    latents = tuple(torch.zeros(shape, device=device) for _ in range(pictures))
    examples = ExampleSet(latents, rows, ("",) * pictures, (None,) * pictures)
    drawn = [Draw(row, torch.zeros(shape), 0.5, dropped=False) for row in range(pictures)]
    empty = {name: values[:1] for name, values in rows.items()}
    return lambda: losses(base, examples, drawn, empty, config).mean().backward()


def _weightless(entry: BaseModelEntry) -> BaseModel:
    return weightless(entry, getattr(torch, entry.traits.training_weights))


def _steps(entry: BaseModelEntry, targets: TargetsName, formats: Formats) -> dict[str, Step]:
    base = _weightless(entry)
    config = decide(_GIVEN | {"targets": targets}, entry, 0, 16, "")
    held: dict[str, list[Held]] = {name: [] for name in formats}
    with Trainee(base, config, accelerator_for(config, _CPU)) as trainee:
        # As they are trained, whatever the base model is held in.
        for parameter in trainee.parameters:
            parameter.data = parameter.data.float()
        for name in ("kept", "recomputed"):
            if name == "recomputed":
                trainee.checkpoint_gradients()
            for precision, halves in formats.items():
                began_s = time.monotonic()
                # The adapter is computed where it is known how large it is.
                casts = 2 * sum(parameter.numel() for parameter in trainee.parameters) if halves else 0
                found = _line(
                    entry,
                    base,
                    lambda pictures, size, halves=halves: count_step(base, config, pictures, size, halves, _META),
                    casts,
                )
                held[precision].append(found)
                print(f"{targets}, {precision}, {name}: {found} ({time.monotonic() - began_s:.0f} s)", flush=True)
    return {name: Step(kept=kept, recomputed=recomputed) for name, (kept, recomputed) in held.items()}


def _text_encoders(entry: BaseModelEntry, halves: torch.dtype | None) -> Held:
    base = _weightless(entry)
    config = decide(_GIVEN | {"text_encoder_learning_rate": 1e-4}, entry, 0, 16, "")
    with Trainee(base, config, accelerator_for(config, _CPU)):
        counts = []
        for prompts in (1, 2):
            with as_on_cuda(halves), LiveBytes() as live:
                said = base.encode_prompts([""] * prompts)
                counts.append(live.now)
                del said
    per_prompt = counts[1] - counts[0]
    return Held(fixed=counts[0] - per_prompt, per_picture=per_prompt, per_position=0, per_picture_position=0)


@torch.no_grad()
def _drawing(base: BaseModel, pictures: int, size: int, halves: torch.dtype | None) -> int:
    rows = _conditioning(base, pictures)
    noisy_BCHW = torch.zeros((pictures, *base.latent_shape(size, size)), device=_META)
    timesteps_B = base.timesteps(torch.full((pictures,), 0.5), base.latent_shape(size, size)).to(_META)
    with as_on_cuda(halves), LiveBytes() as live:
        base.predict(noisy_BCHW, timesteps_B, rows)
    return live.peak


@torch.no_grad()
def _autoencoding(base: Any, pictures: int, size: int, encoding: bool) -> int:
    pixels_BCHW = torch.zeros((pictures, 3, size, size), device=_META)
    latents_BCHW = torch.zeros((pictures, *base.latent_shape(size, size)), device=_META)
    with as_on_cuda(None), LiveBytes() as live:
        if encoding:
            base.to_latents(pixels_BCHW)
        else:
            base.to_pixels(latents_BCHW)
    return live.peak + pixels_BCHW.nbytes


def _conditioning(base: BaseModel, pictures: int) -> Conditioning:
    with torch.no_grad():
        said: dict[str, Tensor] = base.encode_prompts([""] * pictures)
    return said


def _line(entry: BaseModelEntry, base: BaseModel, counted: Count, casts: int = 0) -> Held:
    """Through two sizes, and two pictures of the smaller one."""
    small, large, twice = (
        counted(1, entry.default_size // 2),
        counted(1, entry.default_size),
        counted(2, entry.default_size // 2),
    )
    few, many = _positions(base, entry.default_size // 2), _positions(base, entry.default_size)
    slope = (large - small) / (many - few)
    per_picture = twice - small - slope * few
    return Held(
        fixed=small - casts - slope * few - per_picture,
        per_picture=per_picture,
        per_position=0,
        per_picture_position=slope,
    )


def _plane(entry: BaseModelEntry, base: BaseModel, counted: Count) -> Held:
    """Through two sizes and two numbers of pictures: where pictures go one by one, each costs less than the first."""
    few, many = _positions(base, entry.default_size // 2), _positions(base, entry.default_size)
    (one_few, one_many), (two_few, two_many) = (
        [counted(pictures, size) for size in (entry.default_size // 2, entry.default_size)] for pictures in (1, 2)
    )
    slope = (two_many - one_many - (two_few - one_few)) / (many - few)
    per_picture = two_few - one_few - slope * few
    once = (one_many - one_few) / (many - few) - slope
    fixed = one_few - per_picture - (once + slope) * few
    return Held(fixed=fixed, per_picture=per_picture, per_position=once, per_picture_position=slope)


def _positions(base: BaseModel, size: int) -> int:
    _, height, width = base.latent_shape(size, size)
    return height * width


if __name__ == "__main__":
    main()
