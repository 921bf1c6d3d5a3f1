"""The model card of an adapter version, in the shape that model hubs read: YAML front matter, then Markdown. Pure.

Its one rule: whatever a caller wrote is quoted, so that it is read as text and nothing else.
"""

import json
import re

from base_models.traits import FAMILIES
from service_kit.adapter_manifest import AdapterManifest, EvaluationEntry

# The hubs' own words for licences (https://huggingface.co/docs/hub/repositories-licenses), as far as people give their
# own pictures one.
_HUB_LICENCES = {
    *("apache-2.0", "mit", "unlicense", "cc0-1.0", "openrail", "creativeml-openrail-m"),
    *("cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
}
_MEASURED = {
    "likeness": "from the base model's own pictures (0) to the training pictures (1)",
    "obedience": "how often a picture shows what its prompt asks for, 0 to 1",
    "memorisation": "the part of the pictures that copy a training picture, 0 to 1",
    "diversity": "how much pictures of different prompts differ",
}


def model_card(manifest: AdapterManifest) -> str:
    """The card, in UTF-8 text. Consent stays with the adapter: it may name people."""
    family = FAMILIES[manifest.pipeline]
    prompt = f"a picture of {manifest.trigger_word} {manifest.class_noun}"
    kind = "DoRA" if manifest.training_config.get("adapter_type") == "dora" else "LoRA"
    return "\n".join(
        [
            *_front_matter(manifest, prompt, kind),
            "",
            f"# {_text(manifest.adapter)}",
            "",
            f"A {kind} of rank {manifest.rank} that teaches {_text(manifest.base_model)} one subject. Prompts begin",
            f"with {_code(prompt)}.",
            "",
            "```python",
            f"from diffusers import {manifest.pipeline}",
            "",
            f"pipeline = {manifest.pipeline}.from_pretrained({manifest.base_model!r})",
            "pipeline.load_lora_weights('.', weight_name='diffusers.safetensors')",
            f"pipeline({prompt!r}).images[0].save('picture.png')",
            "```",
            "",
            f"`kohya.safetensors`, where it was exported, is the same adapter for {family.kohya_readers}.",
            "",
            "## What it is",
            "",
            *_table(_facts(manifest)),
            *_measurements(manifest.evaluation, manifest.validation_loss),
            *_training(manifest),
            "",
        ]
    )


def _front_matter(manifest: AdapterManifest, prompt: str, kind: str) -> list[str]:
    family = FAMILIES[manifest.pipeline].tag
    tags = ["text-to-image", family, "lora", *(["dora"] if kind == "DoRA" else []), "dreambooth"]
    lines = [
        "---",
        "library_name: diffusers",
        "pipeline_tag: text-to-image",
        f"base_model: {json.dumps(manifest.base_model, ensure_ascii=False)}",
        f"instance_prompt: {json.dumps(prompt, ensure_ascii=False)}",
        f"tags: {json.dumps(tags)}",
    ]
    if manifest.licence.lower() in _HUB_LICENCES:
        lines.append(f"license: {manifest.licence.lower()}")
    elif manifest.licence:
        lines += ["license: other", f"license_name: {json.dumps(manifest.licence, ensure_ascii=False)}"]
    return [*lines, "---"]


def _facts(manifest: AdapterManifest) -> dict[str, str]:
    facts = {
        "adapter": _code(str(manifest.name)),
        "made": manifest.created_at.isoformat(timespec="seconds"),
        "base model": f"{_text(manifest.base_model)}, weights {_code(manifest.base_model_digest[:16])}",
        "trigger word": _code(manifest.trigger_word),
        "class noun": _code(manifest.class_noun),
        "layers": manifest.targets.replace("_", " "),
    }
    if manifest.image_count:
        facts["pictures"] = f"{manifest.image_count}, digest {_code(manifest.dataset_digest[:16])}"
    if manifest.licence:
        facts["licence"] = _text(manifest.licence)
    return facts


def _measurements(evaluation: EvaluationEntry | None, validation_loss: float | None) -> list[str]:
    measured = {}
    if evaluation is not None:
        for name, meaning in _MEASURED.items():
            value = getattr(evaluation, name)
            if value is not None:
                measured[f"{name}: {meaning}"] = f"{value:.3f}"
    if validation_loss is not None:
        measured["validation loss"] = f"{validation_loss:.5f}"
    if not measured:
        return []
    judge = [f"By {_code(evaluation.judge)}.", ""] if evaluation is not None else []
    return ["", "## What was measured", "", *judge, *_table(measured)]


def _training(manifest: AdapterManifest) -> list[str]:
    if not manifest.training_config:
        return []
    values = {name: _code(str(value)) for name, value in sorted(manifest.training_config.items())}
    step = [f"The weights are those of step {manifest.chosen_step}.", ""] if manifest.chosen_step else []
    return ["", "## How it was trained", "", *step, *_table(values)]


def _table(rows: dict[str, str]) -> list[str]:
    return ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]


def _text(words: str) -> str:
    """Words in which Markdown and HTML see nothing to do."""
    return re.sub(r"([\\`*_{}\[\]<>#|&~$])", r"\\\1", words)


def _code(words: str) -> str:
    """Words as code, in a table cell too. A backtick would end it, whatever stands before it."""
    return f"`{words.replace('`', chr(39)).replace('|', chr(92) + '|')}`"
