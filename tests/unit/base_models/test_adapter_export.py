"""Exports by themselves: names, bytes, header; what diffusers makes of them is tested beside this file."""

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from base_models.adapters.adapter_export import is_dora, renamed, stored_tensors, write_safetensors
from base_models.catalog import BUNDLED, describe
from base_models.traits.family_traits import Architecture

SD = "StableDiffusionPipeline"
SDXL = "StableDiffusionXLPipeline"
TO_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
Q_PROJ = "encoder.layers.0.self_attn.q_proj"


def adapter_file(magnitudes: bool = False) -> tuple[bytes, dict[str, np.ndarray]]:
    """A linear layer, a convolution and a layer of the text encoder, rank 2; and its tensors."""
    random = np.random.default_rng(0)
    shapes = {
        f"unet.{TO_Q}": ((2, 6), (4, 2), (4,)),
        "unet.conv_in": ((2, 3, 3, 3), (5, 2, 1, 1), (1, 5, 1, 1)),
        f"text_encoder.{Q_PROJ}": ((2, 8), (8, 2), (8,)),
    }
    tensors = {}
    for layer, (a, b, magnitude) in shapes.items():
        tensors[f"{layer}.lora_A.weight"] = random.standard_normal(a, dtype=np.float32)
        tensors[f"{layer}.lora_B.weight"] = random.standard_normal(b, dtype=np.float32)
        if magnitudes:
            tensors[f"{layer}.lora_magnitude_vector.weight"] = random.standard_normal(magnitude, dtype=np.float32)
    return safetensors.numpy.save(tensors, {"what": "ever"}), tensors


def test_diffusers_names_are_pefts_with_the_text_model_that_transformers_may_want() -> None:
    body, tensors = adapter_file(magnitudes=True)
    exported = safetensors.numpy.load(write_safetensors(renamed(stored_tensors(body), "diffusers", SD), {}))
    back = {name.replace("text_encoder.text_model.", "text_encoder."): tensor for name, tensor in exported.items()}
    assert f"text_encoder.text_model.{Q_PROJ}.lora_A.weight" in exported
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[name], tensors[name]) for name in tensors)


def test_kohya_names_shapes_and_alphas() -> None:
    body, tensors = adapter_file(magnitudes=True)
    assert is_dora(stored_tensors(body))
    exported = safetensors.numpy.load(write_safetensors(renamed(stored_tensors(body), "kohya", SD), {}))
    layers = {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": f"unet.{TO_Q}",
        "lora_unet_conv_in": "unet.conv_in",
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj": f"text_encoder.{Q_PROJ}",
    }
    wanted = {}
    for kohya, own in layers.items():
        wanted[f"{kohya}.lora_down.weight"] = tensors[f"{own}.lora_A.weight"]
        wanted[f"{kohya}.lora_up.weight"] = tensors[f"{own}.lora_B.weight"]
        wanted[f"{kohya}.alpha"] = np.array(2, dtype=np.float32)
        magnitudes = tensors[f"{own}.lora_magnitude_vector.weight"]
        wanted[f"{kohya}.dora_scale"] = magnitudes.reshape((-1, 1, 1, 1) if magnitudes.ndim == 4 else (-1, 1))
    assert exported.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert exported[name].shape == tensor.shape
        assert np.array_equal(exported[name], tensor)


def test_a_lora_has_no_dora_scale() -> None:
    body, _ = adapter_file()
    assert not is_dora(stored_tensors(body))
    assert not [name for name in renamed(stored_tensors(body), "kohya", SD) if "dora_scale" in name]


def test_equal_content_makes_equal_files_whatever_the_order() -> None:
    tensors = renamed(stored_tensors(adapter_file()[0]), "kohya", SD)
    metadata = {f"key {number}": "Grüße" for number in range(20)}
    turned = {name: tensors[name] for name in reversed(tensors)}
    body = write_safetensors(tensors, metadata)
    assert write_safetensors(turned, dict(reversed(metadata.items()))) == body


def test_the_header_holds_the_metadata_and_the_hash_of_all_tensor_bytes() -> None:
    body = write_safetensors(renamed(stored_tensors(adapter_file()[0]), "kohya", SD), {"modelspec.title": "Ä\n|"})
    (length,) = struct.unpack_from("<Q", body)
    header = json.loads(body[8 : 8 + length])["__metadata__"]
    assert length % 8 == 0
    assert header == {
        "modelspec.title": "Ä\n|",
        "modelspec.hash_sha256": f"0x{hashlib.sha256(body[8 + length :]).hexdigest()}",
    }


@pytest.mark.parametrize(
    ("pipeline", "width", "prediction", "wanted"),
    [
        (SD, 768, "epsilon", Architecture("stable-diffusion-v1", "sd_v1", "epsilon")),
        (SD, 768, "v_prediction", Architecture("stable-diffusion-v1", "sd_v1_v", "v")),
        (SD, 1024, "epsilon", Architecture("stable-diffusion-v2-512", "sd_v2", "epsilon")),
        (SD, 1024, "v_prediction", Architecture("stable-diffusion-v2-768-v", "sd_v2_v", "v")),
        (SD, 32, None, Architecture("mine", "mine", "epsilon")),
        (SDXL, 2048, "epsilon", Architecture("stable-diffusion-xl-v1-base", "sdxl_base_v1-0", "epsilon")),
        (SDXL, 768, "epsilon", Architecture("mine", "mine", "epsilon")),
    ],
)
def test_an_architecture_is_named_by_what_its_files_say(
    tmp_path: Path, pipeline: str, width: int, prediction: str | None, wanted: Architecture
) -> None:
    for folder, file, config in (
        ("unet", "config.json", {"cross_attention_dim": width}),
        ("scheduler", "scheduler_config.json", {"prediction_type": prediction} if prediction else {}),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text(json.dumps(config))
    toon = describe("mine", BUNDLED["toon-64"])
    assert replace(toon, folder=tmp_path, pipeline=pipeline).architecture() == wanted


def test_the_bundled_model_is_called_by_its_own_name() -> None:
    assert describe("toon-64", BUNDLED["toon-64"]).architecture() == Architecture("toon-64", "toon-64", "v")
