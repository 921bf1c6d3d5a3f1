"""Training in slices: positions, schedules, and a resumed run held bit for bit against an uninterrupted one."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from base_models.toon_64.recipe.sliced_training import (
    Batch,
    Plan,
    generator,
    learning_rate_at,
    load_average,
    order,
    train_slice,
)

PLAN = Plan(pictures=24, batch_size=2, learning_rate=0.05, warmup_pictures=4, averaging=0.9, seed=3)
EXAMPLES = 7


class Pair:
    """Two small networks that are trained together on noisy copies of seven pictures."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.modules = {"first": nn.Conv2d(3, 4, 3, padding=1), "second": nn.Conv2d(4, 3, 3, padding=1)}
            self.pixels_NCHW = torch.rand(EXAMPLES, 3, 8, 8)
        for module in self.modules.values():
            module.to(memory_format=torch.channels_last)
        self.seen: list[int] = []

    def loss(self, batch: Batch) -> Tensor:
        self.seen += batch.rows_B.tolist()
        pixels_BCHW = self.pixels_NCHW[batch.rows_B]
        noisy_BCHW = pixels_BCHW + 0.1 * torch.randn(pixels_BCHW.shape, generator=batch.random)
        return (self.modules["second"](self.modules["first"](noisy_BCHW).relu()) - pixels_BCHW).square().mean()

    def train(self, checkpoint: Path, slice_s: float) -> bool:
        rates = {"second": 0.5}
        return train_slice(checkpoint, self.modules, PLAN, EXAMPLES, self.loss, slice_s, lambda line: None, rates)

    def weights(self) -> list[Tensor]:
        return [value for module in self.modules.values() for value in module.state_dict().values()]


@pytest.mark.parametrize("averaged", [False, True], ids=["weights of the last step", "averaged weights"])
def test_many_slices_leave_the_same_bits_as_one(tmp_path: Path, averaged: bool) -> None:
    whole, sliced = Pair(), Pair()
    assert whole.train(tmp_path / "whole", slice_s=60.0)
    slices = 1
    # A slice of no time takes one step; every slice starts from new networks, as another process would.
    while not (current := Pair()).train(tmp_path / "sliced", slice_s=0.0):
        sliced.seen += current.seen
        slices += 1
    assert slices == PLAN.steps
    assert sliced.seen + current.seen == whole.seen
    if averaged:
        load_average(tmp_path / "whole", whole.modules)
        load_average(tmp_path / "sliced", current.modules)
    assert all(torch.equal(a, b) for a, b in zip(whole.weights(), current.weights(), strict=True))


def test_a_plan_that_is_done_trains_no_further(tmp_path: Path) -> None:
    first, again = Pair(), Pair()
    assert first.train(tmp_path / "checkpoint", slice_s=60.0)
    assert again.train(tmp_path / "checkpoint", slice_s=60.0)
    assert again.seen == []
    assert all(torch.equal(a, b) for a, b in zip(first.weights(), again.weights(), strict=True))


def test_the_average_is_neither_the_start_nor_the_end(tmp_path: Path) -> None:
    start, end, average = Pair(), Pair(), Pair()
    end.train(tmp_path / "checkpoint", slice_s=60.0)
    load_average(tmp_path / "checkpoint", average.modules)
    for pair in (start, end):
        assert not torch.equal(pair.weights()[0], average.weights()[0])


def test_what_requires_no_gradient_is_left_alone(tmp_path: Path) -> None:
    pair, untouched = Pair(), Pair()
    pair.modules["first"].requires_grad_(False)
    pair.train(tmp_path / "checkpoint", slice_s=60.0)
    before, after = untouched.weights(), pair.weights()
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[2], after[2])


def test_the_learning_rate_rises_to_its_peak_and_falls_to_its_end() -> None:
    rates = [learning_rate_at(step, PLAN) for step in range(1, PLAN.steps + 1)]
    assert rates[0] == pytest.approx(PLAN.learning_rate / 2)
    assert max(rates) == rates[1] == pytest.approx(PLAN.learning_rate)
    assert all(before > after for before, after in itertools.pairwise(rates[1:]))
    assert rates[-1] == pytest.approx(PLAN.learning_rate * PLAN.final_rate)


def test_the_learning_rate_depends_on_pictures_seen_and_not_on_the_batch() -> None:
    larger = Plan(pictures=24, batch_size=4, learning_rate=0.05, warmup_pictures=4)
    assert learning_rate_at(3, larger) == pytest.approx(learning_rate_at(6, PLAN))


def test_every_epoch_shows_every_picture_once_and_in_an_order_of_its_own() -> None:
    epochs = [order(0, EXAMPLES, EXAMPLES * epoch, EXAMPLES).tolist() for epoch in range(3)]
    assert all(sorted(epoch) == list(range(EXAMPLES)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_a_batch_is_the_same_however_the_run_got_there() -> None:
    straight = torch.cat([order(1, EXAMPLES, position, 2) for position in range(0, 20, 2)])
    assert torch.equal(order(1, EXAMPLES, 0, 20), straight)


def test_chance_depends_on_seed_and_step_alone() -> None:
    drawn = {(seed, step): torch.rand((), generator=generator(seed, step)).item() for seed in (0, 1) for step in (1, 2)}
    assert len(set(drawn.values())) == 4
    assert torch.rand((), generator=generator(0, 2)).item() == drawn[0, 2]
