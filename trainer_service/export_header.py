"""The header of an exported adapter file: ModelSpec and Kohya's `ss_` keys. Pure.

Its one rule: only what is known is said; a value that somebody would have to guess is left out.
"""

import json
from collections.abc import Mapping
from typing import Any

from base_models.adapters.adapter_export import KeyNames
from base_models.traits import FAMILIES
from base_models.traits.family_traits import Architecture
from service_kit.adapter_manifest import ADAPTER_FILE, AdapterManifest

_PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
# Kohya's name, ours, and whether 0 means that it was not used.
_FROM_CONFIG = (
    ("ss_learning_rate", "learning_rate", False),
    ("ss_unet_lr", "learning_rate", False),
    ("ss_text_encoder_lr", "text_encoder_learning_rate", True),
    ("ss_max_train_steps", "steps", False),
    ("ss_lr_warmup_steps", "warmup_steps", False),
    ("ss_total_batch_size", "batch_size", False),
    ("ss_seed", "seed", False),
    ("ss_caption_dropout_rate", "caption_dropout", False),
    ("ss_optimizer", "optimizer", False),
    ("ss_noise_offset", "noise_offset", True),
    ("ss_min_snr_gamma", "min_snr_gamma", True),
    ("ss_prior_loss_weight", "prior_weight", True),
)


def export_header(
    manifest: AdapterManifest, architecture: Architecture | None, key_names: KeyNames, is_dora: bool
) -> dict[str, str]:
    """The metadata of an exported file.

    ModelSpec 1.0.1 (https://github.com/Stability-AI/ModelSpec) is what model pickers show; the `ss_` keys are those of
    Kohya's sd-scripts (train_network.py). architecture: None where the base model is no longer allowed here.
    """
    header = {"format": "pt"} | _model_spec(manifest, architecture, key_names, is_dora) | _kohya(manifest, architecture)
    module = FAMILIES[manifest.pipeline].kohya_module
    if key_names == "kohya" and module and not is_dora:
        # Whose names and whose arithmetic these are. None of Kohya's own modules knows DoRA.
        header["ss_network_module"] = module
    return header


def _model_spec(
    manifest: AdapterManifest, architecture: Architecture | None, key_names: KeyNames, is_dora: bool
) -> dict[str, str]:
    kind = "DoRA" if is_dora else "LoRA"
    subject = f"{manifest.trigger_word} {manifest.class_noun}"
    spec = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{architecture.name if architecture else manifest.base_model}/lora",
        # Whose names the layers of the file have.
        "implementation": FAMILIES[manifest.pipeline].kohya_implementation if key_names == "kohya" else "diffusers",
        "title": f"{manifest.adapter}, version {manifest.version}",
        "description": f"A {kind} of {subject} for {manifest.base_model}.",
        "date": manifest.created_at.isoformat(timespec="seconds"),
        "usage_hint": f"begin prompts with: a picture of {subject}",
        "trigger_phrase": manifest.trigger_word,
    }
    if architecture and architecture.prediction_type:
        spec["prediction_type"] = architecture.prediction_type
    if "resolution" in manifest.training_config:
        side = manifest.training_config["resolution"]
        spec["resolution"] = f"{side}x{side}"
    if manifest.licence:
        spec["license"] = manifest.licence
    return {f"modelspec.{name}": text for name, text in spec.items()}


def _kohya(manifest: AdapterManifest, architecture: Architecture | None) -> dict[str, str]:
    config = manifest.training_config
    known: dict[str, Any] = {
        "ss_output_name": f"{manifest.adapter}-v{manifest.version}",
        "ss_sd_model_name": manifest.base_model,
        "ss_base_model_version": architecture.base_model_version if architecture else manifest.base_model,
        "ss_network_dim": manifest.rank,
        # The file's alpha: what it was trained with is folded into the weights.
        "ss_network_alpha": float(manifest.rank),
        "ss_mixed_precision": _PRECISIONS.get(str(config.get("precision"))),
        "ss_num_train_images": manifest.image_count or None,
        "ss_steps": manifest.chosen_step or None,
    }
    known |= {name: _used(config, ours, zero_is_off) for name, ours, zero_is_off in _FROM_CONFIG}
    if config.get("prior_weight"):
        known["ss_num_reg_images"] = config.get("prior_images")
    if "resolution" in config:
        known["ss_resolution"] = f"({config['resolution']}, {config['resolution']})"
    own = {
        "personae.adapter": str(manifest.name),
        "personae.adapter_digest": next(file.digest for file in manifest.artifacts if file.artifact_id == ADAPTER_FILE),
        "personae.base_model_digest": manifest.base_model_digest,
        # An imported adapter has none of ours.
        "personae.dataset_digest": manifest.dataset_digest or None,
        "personae.training_config": json.dumps(config, sort_keys=True) if config else None,
    }
    return {name: str(value) for name, value in (known | own).items() if value is not None}


def _used(config: Mapping[str, Any], name: str, zero_is_off: bool) -> Any:
    value = config.get(name)
    return None if zero_is_off and not value else value
