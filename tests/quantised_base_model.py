"""A small SDXL whose UNet is quantised by torchao, as diffusers writes it."""

import shutil
from pathlib import Path

import torch
import torchao.quantization
from diffusers import TorchAoConfig, UNet2DConditionModel

from base_models.catalog import BaseModelEntry, describe

KINDS = ("Int8WeightOnlyConfig", "Float8WeightOnlyConfig")


def write_quantised(entry: BaseModelEntry, folder: Path, kind: str) -> BaseModelEntry:
    """Write a copy with the UNet's linear layers quantised. kind: of torchao's configurations."""
    shutil.copytree(entry.folder, folder, ignore=shutil.ignore_patterns("unet"))
    how = TorchAoConfig(getattr(torchao.quantization, kind)(version=2))
    unet = UNet2DConditionModel.from_pretrained(entry.folder / "unet", quantization_config=how, dtype=torch.bfloat16)
    unet.save_pretrained(folder / "unet")
    return describe("quantised", folder)
