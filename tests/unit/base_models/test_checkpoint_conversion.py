"""Checkpoints under their authors' names become the very files that the folder of the same model holds."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from base_models.adapters.layer_shapes import read_layer_shapes
from base_models.catalog import BaseModelEntry, describe
from base_models.weights.checkpoint_conversion import NotConvertible, convert
from base_models.weights.weight_files import checkpoint_of, parts_in_checkpoint
from tests.benchmarks.random_base_model import write_tiny
from tests.families.flux_2 import write_tiny_flux_2
from tests.families.qwen_image import write_tiny_qwen_image
from tests.families.stable_diffusion_3 import write_tiny_stable_diffusion_3
from tests.families.z_image import write_tiny_z_image
from tests.original_names import write_stable_diffusion, write_stable_diffusion_2, write_stable_diffusion_xl
from tests.original_transformers import (
    FLUX,
    FLUX_2,
    PREFIX,
    QWEN_IMAGE,
    Z_IMAGE,
    Published,
    write_stable_diffusion_3,
    write_transformer,
)

Change = Callable[[dict[str, torch.Tensor]], object]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> BaseModelEntry:
    folder: Path = tmp_path_factory.mktemp("sd15")
    write_tiny(folder)
    return describe("sd15", folder)


def converted(name: str, folder: Path) -> BaseModelEntry:
    """The model of that folder, converted where it lies; the checkpoint is gone."""
    entry = describe(name, folder)
    checkpoint = checkpoint_of(entry)
    convert(checkpoint, folder, parts_in_checkpoint(entry))
    checkpoint.unlink()
    return describe(name, folder)


def assert_same_weights(entry: BaseModelEntry, original: BaseModelEntry) -> None:
    """The digest is of every weight file's path and bytes, so it says all; the tensors say what differs."""
    for path in sorted(original.folder.rglob("*.safetensors")):
        ours, theirs = load_file(entry.folder / path.relative_to(original.folder)), load_file(path)
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert entry.digest() == original.digest()
    assert read_layer_shapes(entry) == read_layer_shapes(original)


def test_stable_diffusion_has_the_files_of_its_folder(tiny: BaseModelEntry, tmp_path: Path) -> None:
    write_stable_diffusion(tiny.folder, tmp_path / "single")
    assert_same_weights(converted("sd15", tmp_path / "single"), tiny)


def test_stable_diffusion_2_has_the_files_of_its_folder(tmp_path: Path) -> None:
    write_tiny(tmp_path / "parts", predicts_v=True)
    write_stable_diffusion_2(tmp_path / "parts", tmp_path / "single")
    assert_same_weights(converted("sd2", tmp_path / "single"), describe("sd2", tmp_path / "parts"))


def test_sdxl_has_the_files_of_its_folder(tiny_sdxl: BaseModelEntry, tmp_path: Path) -> None:
    write_stable_diffusion_xl(tiny_sdxl.folder, tmp_path / "single")
    assert_same_weights(converted("sdxl", tmp_path / "single"), tiny_sdxl)


def test_stable_diffusion_3_has_the_files_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    write_tiny_stable_diffusion_3(folder)
    encoder = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder", local_files_only=True)
    torch.nn.init.eye_(encoder.text_projection.weight)
    encoder.save_pretrained(folder / "text_encoder")
    write_stable_diffusion_3(folder, tmp_path / "single")
    assert_same_weights(converted("sd3", tmp_path / "single"), describe("sd3", folder))


@pytest.mark.parametrize(
    ("write", "published"),
    [
        pytest.param(lambda folder: write_flux(folder), FLUX, marks=pytest.mark.slow, id="flux"),
        pytest.param(write_tiny_flux_2, FLUX_2, id="flux-2"),
        pytest.param(write_tiny_z_image, Z_IMAGE, id="z-image"),
        pytest.param(write_tiny_qwen_image, QWEN_IMAGE, id="qwen-image"),
    ],
)
def test_a_transformer_comes_from_the_checkpoint_and_the_rest_from_its_folders(
    write: Callable[[Path], None], published: Published, tmp_path: Path
) -> None:
    write(tmp_path / "parts")
    write_transformer(tmp_path / "parts", tmp_path / "single", published)
    single = describe("single", tmp_path / "single")
    assert parts_in_checkpoint(single) == ["transformer"]
    assert_same_weights(converted("single", tmp_path / "single"), describe("single", tmp_path / "parts"))


@pytest.mark.parametrize(
    ("write", "published"),
    [(write_tiny_flux_2, FLUX_2), (write_tiny_z_image, Z_IMAGE), (write_tiny_qwen_image, QWEN_IMAGE)],
    ids=["flux-2", "z-image", "qwen-image"],
)
def test_a_transformer_is_found_beside_other_parts(
    write: Callable[[Path], None], published: Published, tmp_path: Path
) -> None:
    """As ComfyUI saves a merge."""
    write(tmp_path / "parts")
    path = write_transformer(tmp_path / "parts", tmp_path / "single", replace(published, prefix=PREFIX))
    beside = {
        name: torch.zeros(1) for name in ("first_stage_model.encoder.conv_in.bias", "text_encoders.shared.weight")
    }
    save_file(load_file(path) | beside, path)
    assert_same_weights(converted("single", tmp_path / "single"), describe("single", tmp_path / "parts"))


def test_numbers_stay_in_the_precision_that_the_checkpoint_has(tiny: BaseModelEntry, tmp_path: Path) -> None:
    path = write_stable_diffusion(tiny.folder, tmp_path / "single")
    halves = {name: tensor.half() for name, tensor in load_file(path).items()}
    # An autoencoder in the full precision is usual.
    save_file({name: t.float() if name.startswith("first_stage") else t for name, t in halves.items()}, path)
    converted("sd15", tmp_path / "single")
    for part, dtype in (("unet", torch.float16), ("text_encoder", torch.float16), ("vae", torch.float32)):
        (file,) = (tmp_path / "single" / part).glob("*.safetensors")
        assert {tensor.dtype for tensor in load_file(file).values()} == {dtype}


def test_weights_averaged_while_training_are_left_aside(tiny: BaseModelEntry, tmp_path: Path) -> None:
    path = write_stable_diffusion(tiny.folder, tmp_path / "single")
    published = load_file(path)
    averages = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): tensor + 1
        for name, tensor in published.items()
        if name.startswith("model.diffusion_model.")
    }
    save_file(published | averages | {"global_step": torch.tensor(1)}, path)
    assert_same_weights(converted("sd15", tmp_path / "single"), tiny)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("model.diffusion_model.out.2.bias"), r"unet: the checkpoint lacks conv_out\.bias"),
        (
            lambda tensors: tensors.update({"model.diffusion_model.out.2.bias": torch.zeros(9)}),
            r"unet: conv_out\.bias is torch\.float32 \[9\]; its config\.json wants floats of \[4\]",
        ),
        (
            lambda tensors: tensors.pop("cond_stage_model.transformer.text_model.final_layer_norm.weight"),
            r"text_encoder: the checkpoint lacks .*final_layer_norm\.weight",
        ),
        (
            lambda tensors: tensors.update({"model.diffusion_model.out.2.scale_weight": torch.ones(1)}),
            r"it is quantised \(model\.diffusion_model\.out\.2\.scale_weight\)",
        ),
        (lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("first_stage")], "vae: "),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_and_leaves_no_weights(
    change: Change, words: str, tiny: BaseModelEntry, tmp_path: Path
) -> None:
    path = write_stable_diffusion(tiny.folder, tmp_path / "single")
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    entry = describe("sd15", tmp_path / "single")
    refused = words.partition(":")[0]
    with pytest.raises(NotConvertible, match=words):
        convert(path, entry.folder, parts_in_checkpoint(entry))
    assert refused not in {file.parent.name for file in entry.folder.rglob("*.safetensors")}


def test_a_pickle_is_not_read_in_the_place_of_what_the_checkpoint_lacks(tiny: BaseModelEntry, tmp_path: Path) -> None:
    path = write_stable_diffusion(tiny.folder, tmp_path / "single")
    save_file({name: tensor for name, tensor in load_file(path).items() if not name.startswith("cond_")}, path)
    encoder = CLIPTextModel.from_pretrained(tiny.folder / "text_encoder", local_files_only=True, use_safetensors=True)
    torch.save(encoder.state_dict(), tmp_path / "single" / "text_encoder" / "pytorch_model.bin")
    with pytest.raises(NotConvertible, match="holds no CLIPTextModel; put its weights into text_encoder/"):
        convert(path, tmp_path / "single", ["text_encoder"])


def test_a_class_that_nothing_is_known_of_says_where_its_weights_belong(tiny: BaseModelEntry, tmp_path: Path) -> None:
    path = write_stable_diffusion(tiny.folder, tmp_path / "single")
    index = tmp_path / "single" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"vae": ["diffusers", "AutoencoderTiny"]}))
    with pytest.raises(NotConvertible, match="no conversion is known for a AutoencoderTiny; put its weights into vae/"):
        convert(path, tmp_path / "single", ["vae"])


def write_flux(folder: Path) -> None:
    """A random FLUX.1 of one block each: as wide as the published one, since the conversion knows no other."""
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=128,
        num_attention_heads=24,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        guidance_embeds=True,
    )
    text = CLIPTextConfig(vocab_size=99, hidden_size=16, intermediate_size=32, num_hidden_layers=1, projection_dim=16)
    t5 = T5Config(vocab_size=99, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    vae = AutoencoderKL(block_out_channels=(8,), latent_channels=4, norm_num_groups=4, shift_factor=0.1)
    for part, module in {"vae": vae, "text_encoder": CLIPTextModel(text), "text_encoder_2": T5EncoderModel(t5)}.items():
        module.save_pretrained(folder / part)
    transformer.to(torch.bfloat16).save_pretrained(folder / "transformer", max_shard_size="9GB")
    index = {
        "_class_name": "FluxPipeline",
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer_2": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "tokenizer_2").mkdir()
    (folder / "tokenizer_2" / "tokenizer_config.json").write_text('{"model_max_length": 512}')
