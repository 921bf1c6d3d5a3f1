"""The model card, README.md of a model's folder: written from its weights and its figures, never by hand.

What a figure says is judged by the figure; only what was done differently in an earlier base is told in words.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from safetensors import safe_open

from base_models.toon_64.recipe.figures import Figures

SOURCES = {
    "adventurer": ("Adventurer", "Lisa Wischofsky", "CC BY 4.0"),
    "bigsmile": ("Custom Avatar", "Ashley Seo", "CC BY 4.0"),
    "micah": ("Avatar Illustration System", "Micah Lanier", "CC BY 4.0"),
    "peeps": ("Open Peeps", "Pablo Stanley", "CC0 1.0"),
    "personas": ("Personas", "Draftbit", "CC BY 4.0"),
    "pixel": ("Pixel Art", "DiceBear", "CC0 1.0"),
    "lorelei": ("Lorelei", "Lisa Wischofsky", "CC0 1.0"),
    "thumbs": ("Thumbs", "DiceBear", "CC0 1.0"),
}
"""Design, author and licence of each style; where to find them is in NOTICE."""

CURRENT_CAPTIONS = "the recipe's"
"""Figures.training["captions"] of a model whose text encoder learned the captions that the renderer writes now."""

_NETWORKS = {
    "text_encoder": "CLIP text model, 192 wide, 3 layers, 40 tokens",
    "unet": "UNet of 64, 128 and 176 channels on latents of 4 x 16 x 16, cross-attention on the lower two",
    "vae": "AutoencoderTiny, 48 channels, 64 x 64 pixels to 4 x 16 x 16",
}
_WEAK = 0.8
# An attribute that fewer prompts ask for is too rare to be called weak.
_JUDGED = 20


def render(model: Path, figures: Figures) -> str:
    """The card of the model in this folder, as Markdown."""
    training, psnr = figures.training, figures.autoencoder_psnr_db
    return f"""\
# toon-64

A Stable Diffusion of {_millions(sum(_parameters(model, name) for name in _NETWORKS))} million parameters for 64 x 64 \
cartoon portraits, trained from nothing. It is small enough to train an
adapter on it and to generate with it on a laptop without a GPU: the base model of Personae's tests and demo. It draws
nothing but avatars in {len(SOURCES)} styles and what adapters teach it; it knows no photographs and no real people.

```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("base_models/toon_64")
prompt = "a picture of a micah character, short red hair, tan skin, happy, blue background"
pipeline(prompt, num_inference_steps=20, guidance_scale=3).images[0].save("portrait.png")
```

This file is written from figures.json and the weights; see the end.

## What it is made of

| | | parameters | file |
| --- | --- | ---: | ---: |
{_networks(model)}

Weights are float16. The UNet predicts v (Salimans and Ho 2022, https://arxiv.org/abs/2202.00512) on Stable Diffusion's
noise schedule. Every word of its captions is one token; any other word costs about a token a letter. diffusers prints a
notice about AutoencoderTiny, which it does not expect in this pipeline; it is meant to be there.

## What it was trained on

Pictures rendered from open avatar designs with `@dicebear/collection` 9.4 and `@resvg/resvg-js` (`recipe/render/`),
each with a caption of what the renderer chose. CC BY asks for the credit that NOTICE gives; keep it with the weights.

| style in captions | design | author | licence |
| --- | --- | --- | --- |
{_sources()}

Kept out, so that tests on them are honest: toon-head, dylan, fun-emoji, miniavs.

## How it was trained

1. Autoencoder: {training["autoencoder"]}. L1 + L2 + gradient loss, noise on the latents.
2. Its decoder alone: {training["decoder"]}. The encoder, and so the latents, stay as they are.
3. UNet and text encoder together: {training["denoiser"]}. One caption in ten is empty, for guidance.

`recipe/` is all of it as code; `make base-model` runs it.

## How good it is

Measured on renders and prompts that no training saw.

Autoencoder, on {figures.unseen_pictures:,} pictures:

| style | PSNR (dB) |
| --- | ---: |
{_rows((style, f"{value:.1f}") for style, value in psnr.items())}

Obedience: the share of generated pictures (default settings, seed i for prompt i) in which a classifier trained on
renders alone finds what the prompt asks for. `no glasses` and the like are prompts that do not mention them. The last
column is how often that classifier reads an unseen render right: a bound on what can be measured.

| asked for | obeyed | prompts | classifier |
| --- | ---: | ---: | ---: |
{_obedience(figures)}

| style of the prompt | obeyed | things asked for |
| --- | ---: | ---: |
{_rows((name, _percent(counts), str(counts[1])) for name, counts in figures.obedience_by_style.items())}

Speed on {figures.device}: {figures.seconds_alone:.2f} s for one picture of 20 steps with guidance, \
{figures.seconds_in_groups:.2f} s a picture in groups of 16.

## Known flaws

{_flaws(figures)}

## How to check it and how to make another

| | |
| --- | --- |
| `make base-model-eval` | measures these weights again and fails where a figure of this page is not true |
| `make base-model` | runs the recipe, hours on two CPU cores; says how to put its result in the place of these |
| `.venv/bin/python -m base_models.toon_64.recipe record` | measures; writes figures.json and this page |
"""


def _flaws(figures: Figures) -> str:
    weak = [
        f"{name} ({_percent(counts)})"
        for name, counts in sorted(figures.obedience_by_attribute.items(), key=lambda item: _share(item[1]))
        if counts[1] >= _JUDGED and _share(counts) < _WEAK
    ]
    decibels, blurred = min((value, style) for style, value in figures.autoencoder_psnr_db.items() if style != "all")
    lines = [
        f"What it obeys in fewer than four prompts of five: {', '.join(weak) or 'nothing that was measured'}.",
        f"Lines of one or two pixels blur in the autoencoder, most in {blurred} "
        f"({decibels:.1f} dB): eyes, glasses and mouths above all.",
        "Words that are in no caption do nothing.",
    ]
    if figures.training["captions"] != CURRENT_CAPTIONS:
        lines.append(
            "Its UNet and text encoder learned earlier captions, wrong or silent in places: open-peeps' hair was given "
            "colours though most of it is drawn in black, adventurer and thumbs had no expressions, and faces that "
            "look straight ahead were called mirrored too. The recipe's renderer and captions have mended that, and a "
            "base made by `make base-model` learns the mended ones; this one has not."
        )
    return "\n".join(f"- {line}" for line in lines)


def _obedience(figures: Figures) -> str:
    return _rows(
        (name, _percent(counts), str(counts[1]), f"{100 * figures.classifier_accuracy[name.removeprefix('no ')]:.0f} %")
        for name, counts in figures.obedience_by_attribute.items()
    )


def _networks(model: Path) -> str:
    return _rows(
        (
            f"`{name}/`",
            text,
            f"{_millions(_parameters(model, name))} M",
            f"{_file(model, name).stat().st_size / 1e6:.1f} MB",
        )
        for name, text in _NETWORKS.items()
    )


def _sources() -> str:
    return _rows((f"`{style}`", *source) for style, source in SOURCES.items())


def _rows(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _share(counts: Sequence[int]) -> float:
    return counts[0] / counts[1]


def _percent(counts: Sequence[int]) -> str:
    return f"{100 * _share(counts):.0f} %"


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}"


def _file(model: Path, network: str) -> Path:
    (found,) = (model / network).glob("*.safetensors")
    return found


def _parameters(model: Path, network: str) -> int:
    with safe_open(_file(model, network), "pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
