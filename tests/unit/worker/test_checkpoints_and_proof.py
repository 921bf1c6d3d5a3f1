"""Checkpoints that are torn or belong to an older worker, and adapters that do not do what they should."""

import pytest
import torch

from base_models.adapters.adapter_file import AdapterInvalid, read_adapter, write_adapter
from base_models.families.stable_diffusion import StableDiffusion
from service_kit import schema
from service_kit.memory_store import MemoryStore
from service_kit.names import TrainingName
from trainer_service.training_record import LeaseLost
from trainer_service.worker.checkpoints import Checkpoints, DamagedCheckpoint
from trainer_service.worker.examples import Examples
from trainer_service.worker.proof import AdapterNotReproduced, AdapterWithoutEffect, make_probe, prove
from trainer_service.worker.trainee import Weights
from trainer_service.worker.training_loop import Snapshot, Standing

NAME = TrainingName("default", "t")


def snapshot(step: int) -> Snapshot:
    own = {"a": torch.full((3,), float(step))}
    return Snapshot(step, Weights(own, {}, {"a.step": torch.tensor(float(step))}), {}, Standing())


def latest(checkpoints: Checkpoints) -> Snapshot | None:
    return checkpoints.load(checkpoints.latest())


def test_the_latest_checkpoint_is_loaded_and_older_ones_are_deleted() -> None:
    store = MemoryStore()
    checkpoints = Checkpoints(store, NAME, epoch=1)
    assert latest(checkpoints) is None
    for step in (10, 20):
        checkpoints.save(snapshot(step))
    loaded = latest(Checkpoints(store, NAME, epoch=2))
    assert loaded is not None
    assert (loaded.step, loaded.weights.own["a"].tolist()) == (20, [20.0, 20.0, 20.0])
    keys = list(store.keys(schema.checkpoints_prefix(NAME)))
    assert len([key for key in keys if "-00000010/" in key]) == 0
    assert len(keys) == 6


def test_an_older_epoch_cannot_move_the_pointer() -> None:
    store = MemoryStore()
    Checkpoints(store, NAME, epoch=2).save(snapshot(10))
    with pytest.raises(LeaseLost):
        Checkpoints(store, NAME, epoch=1).save(snapshot(99))
    loaded = latest(Checkpoints(store, NAME, epoch=3))
    assert loaded is not None
    assert loaded.step == 10


def test_a_checkpoint_that_was_cut_half_way_is_never_seen() -> None:
    store = MemoryStore()
    checkpoints = Checkpoints(store, NAME, epoch=1)
    checkpoints.save(snapshot(10))
    # Files of step 20 are there, the pointer was not moved: the writer died in between.
    store.put(schema.checkpoint_file(NAME, 1, 20, "own.safetensors"), b"half")
    loaded = latest(checkpoints)
    assert loaded is not None
    assert loaded.step == 10


def test_a_damaged_checkpoint_is_refused_by_its_hash() -> None:
    store = MemoryStore()
    checkpoints = Checkpoints(store, NAME, epoch=1)
    checkpoints.save(snapshot(10))
    key = schema.checkpoint_file(NAME, 1, 10, "own.safetensors")
    store.put(key, store.get(key).body[:-1] + b"\x01")
    with pytest.raises(DamagedCheckpoint, match=r"own\.safetensors"):
        latest(checkpoints)


def lora(base: StableDiffusion, size: float) -> dict[str, torch.Tensor]:
    """A LoRA of rank 2 on one layer."""
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    weight = base.denoiser.get_submodule(name).weight
    random = torch.Generator().manual_seed(0)
    return {
        f"{name}.lora_A.weight": torch.randn(2, weight.shape[1], generator=random),
        f"{name}.lora_B.weight": size * torch.randn(weight.shape[0], 2, generator=random),
    }


def test_an_adapter_without_effect_and_one_that_differs_are_not_proven(
    base: StableDiffusion, examples: Examples
) -> None:
    probe = make_probe(base, examples.subject)
    untuned_BCHW = probe.predictions(base)
    with pytest.raises(AdapterWithoutEffect):
        prove(base, write_adapter({"unet": lora(base, 0.0)}, 1.0), probe, untuned_BCHW)
    with pytest.raises(AdapterNotReproduced):
        prove(base, write_adapter({"unet": lora(base, 1.0)}, 1.0), probe, untuned_BCHW)
    with pytest.raises(AdapterInvalid):
        prove(base, b"torn", probe, untuned_BCHW)
    assert torch.equal(probe.predictions(base), untuned_BCHW)


def test_the_scale_is_folded_into_the_file(base: StableDiffusion) -> None:
    whole = read_adapter(write_adapter({"unet": lora(base, 1.0)}, 1.0), base.adaptable)
    twice = read_adapter(write_adapter({"unet": lora(base, 1.0)}, 2.0), base.adaptable)
    for name, tensor in whole.items():
        assert torch.equal(twice[name], tensor * 2 if ".lora_B." in name else tensor)
