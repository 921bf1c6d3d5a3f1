"""How a step is divided does not change it: parts, smaller parts when memory runs out, shapes, masks, two processes."""

import pytest
import torch
from torch import Tensor

from base_models.catalog import BaseModelEntry
from base_models.families.stable_diffusion import StableDiffusion
from tests.unit.worker.loop_runs import run
from trainer_service.training_config import TrainingConfig, decide
from trainer_service.worker.batches import draws, example_order, generator
from trainer_service.worker.examples import Examples, encode, encode_empty_prompt
from trainer_service.worker.gradients import OutOfMemory
from trainer_service.worker.training_loop import Noticed

SMALL = {"steps": 3, "batch_size": 4, "rank": 2, "targets": "attention", "sample_every": 0, "validate_every": 0}


@pytest.fixture(scope="module")
def config(entry: BaseModelEntry) -> TrainingConfig:
    return decide(SMALL, entry, seed=5, images=4, subject="x")


def small_memory(fits: int, monkeypatch: pytest.MonkeyPatch, base: StableDiffusion) -> list[int]:
    """Have the base model run out of memory for more than so many pictures at a time; returns what it was asked."""
    predict, asked = base.predict, []

    def predict_or_run_out(noisy_BCHW: Tensor, *others: Tensor) -> Tensor:
        asked.append(len(noisy_BCHW))
        if len(noisy_BCHW) > fits:
            raise torch.OutOfMemoryError("device out of memory")
        return predict(noisy_BCHW, *others)

    monkeypatch.setattr(base, "predict", predict_or_run_out)
    return asked


def test_out_of_memory_is_answered_with_smaller_parts_of_the_same_step(
    base: StableDiffusion, examples: Examples, config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(base, examples, config)
    asked = small_memory(2, monkeypatch, base)
    found = run(base, examples, config)
    assert asked[0] == 4
    assert set(asked[1:]) == {1}
    assert found.losses == pytest.approx(plain.losses, rel=1e-5)
    assert [notice.reason for notice in found.all(Noticed)] == ["OUT_OF_MEMORY_RETRIED"]


def test_what_does_not_fit_in_the_smallest_parts_fails(
    base: StableDiffusion, examples: Examples, config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = small_memory(0, monkeypatch, base)
    with pytest.raises(OutOfMemory):
        run(base, examples, config)
    assert asked == [4, 1]
    assert not hasattr(base.denoiser, "peft_config")


@pytest.fixture(scope="module")
def mixed(base: StableDiffusion) -> Examples:
    """Two square pictures and three wide ones, one of them with a mask over its left half."""
    random = torch.Generator().manual_seed(0)
    pictures = [torch.rand((3, 64, width), generator=random) * 2 - 1 for width in (64, 96, 64, 96, 96)]
    mask_1HW = torch.full((1, 64, 96), 0.1)
    mask_1HW[..., :48] = 1
    weights = [None, mask_1HW, None, None, None]
    subject = encode(base, pictures, ["a picture of sks character"] * 5, weights, lambda done, total: None)
    return Examples(subject, subject, encode_empty_prompt(base), prior=None)


def test_pictures_of_several_shapes_train_in_one_step(
    base: StableDiffusion, mixed: Examples, config: TrainingConfig
) -> None:
    whole = config.model_copy(update={"batch_size": 5, "steps": 1, "validate_every": 1})
    found = run(base, mixed, whole)
    drawn = draws(mixed.subject, 5, 1, 5, 5, whole.caption_dropout, 0.0, generator(5, 1))
    assert sorted(draw.row for draw in drawn) == [0, 1, 2, 3, 4]
    assert {draw.noise_CHW.shape[-1] for draw in drawn} == {16, 24}
    singly = run(base, mixed, config.model_copy(update={"batch_size": 1, "gradient_accumulation": 5, "steps": 1}))
    # The order of an epoch depends on the batch size, its examples do not; noise goes by place, so losses are near.
    assert found.losses[1] == pytest.approx(singly.losses[1], rel=0.5)
    assert found.learned.validation_loss is not None


def test_a_mask_turns_the_eye_of_the_loss_to_the_subject(base: StableDiffusion, mixed: Examples) -> None:
    weights_B1HW = mixed.subject.loss_weights_of([1, 3])
    assert weights_B1HW is not None
    assert weights_B1HW[0, 0, :, :12].min() == pytest.approx(1.0)
    assert weights_B1HW[0, 0, :, 12:].max() == pytest.approx(0.1)
    assert torch.equal(weights_B1HW[1], torch.ones(1, 16, 24))
    assert mixed.subject.loss_weights_of([0, 2]) is None


@pytest.mark.parametrize("batch_size", [1, 3, 5, 12])
def test_every_epoch_shows_every_example_once(batch_size: int) -> None:
    shapes, epochs = [torch.Size((4, 8, 8))] * 3 + [torch.Size((4, 8, 12))] * 4, 4
    count = len(shapes)
    shown = [
        index
        for position in range(0, count * epochs, batch_size)
        for index in example_order(9, shapes, position, batch_size, batch_size)
    ][: count * epochs]
    for epoch in range(epochs):
        assert sorted(shown[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_batches_are_of_one_shape_where_there_are_enough_of_it() -> None:
    shapes = [torch.Size((4, 8, 8 + row % 2)) for row in range(16)]
    batches = [example_order(1, shapes, position, 4, 4) for position in range(0, 16, 4)]
    assert all(len({shapes[row] for row in batch}) == 1 for batch in batches)
