"""Steps that are not finite: skipped, then answered with a lower rate from the last good weights, then given up."""

import pytest
import torch
from torch import Tensor

from base_models.catalog import BaseModelEntry
from base_models.families.stable_diffusion import StableDiffusion
from tests.unit.worker.loop_runs import run, same
from trainer_service.training_config import decide
from trainer_service.worker.examples import Examples
from trainer_service.worker.guard import EVERY, Guard, Verdict
from trainer_service.worker.readings import Reading
from trainer_service.worker.training_loop import NonFiniteLoss, Noticed

SMALL = {"batch_size": 1, "rank": 2, "warmup_steps": 0, "targets": "attention", "sample_every": 0, "validate_every": 0}


def verdicts(bad: set[int], steps: int, guard: Guard) -> dict[int, Verdict]:
    """What a guard says at each step it is asked, of a training whose steps in `bad` are not finite."""
    said = {}
    for step in range(1, steps + 1):
        guard.note([Reading(step, 1.0, finite=step not in bad)])
        if step == steps:
            said[step] = guard.last_verdict(step)
        elif step % EVERY == 0:
            said[step] = guard.verdict(step)
    return said


def test_a_few_bad_steps_are_skipped_and_said_ten_to_twenty_steps_later() -> None:
    said = verdicts({12, 15}, 50, Guard())
    assert said == {10: Verdict.GOOD, 20: Verdict.GOOD, 30: Verdict.SKIPPED, 40: Verdict.GOOD, 50: Verdict.GOOD}


def test_many_bad_steps_lower_the_rate_and_in_the_end_fail() -> None:
    guard = Guard()
    said = verdicts(set(range(1, 1000)), 200, guard)
    assert [step for step, verdict in said.items() if verdict is Verdict.LOWER] == [20, 40, 60]
    assert said[80] is Verdict.FAIL
    assert guard.rate_scale == 0.125


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 19, 20, 25])
def test_a_short_training_whose_steps_were_all_bad_fails_at_its_end(steps: int) -> None:
    assert Verdict.FAIL in verdicts(set(range(1, steps + 1)), steps, Guard(lowered=3)).values()


def test_every_bad_step_is_judged_once() -> None:
    for step in range(1, 46):
        said = verdicts({step}, 45, Guard())
        assert list(said.values()).count(Verdict.SKIPPED) == 1, step


@pytest.mark.parametrize("bad", [set(range(1, 100)), set(range(3, 26)), {12, 15, *range(31, 40)}])
def test_verdicts_do_not_depend_on_when_numbers_come(bad: set[int]) -> None:
    late, guard = {}, Guard()
    for step in range(1, 61):
        if step == 60:
            guard.note(Reading(earlier, 1.0, earlier not in bad) for earlier in range(41, 61))
            late[step] = guard.last_verdict(step)
        elif step % EVERY == 0:
            # As late as the loop allows: see `Readings.arrived`.
            guard.note(Reading(earlier, 1.0, earlier not in bad) for earlier in range(step - 19, step - 9))
            late[step] = guard.verdict(step)
    assert late == verdicts(bad, 60, Guard())


def broken_at(steps: set[int], monkeypatch: pytest.MonkeyPatch, base: StableDiffusion) -> None:
    """Have the base model predict NaN at these steps, counted by its calls."""
    predict, calls = base.predict, iter(range(1, 10_000))

    def predict_or_break(*arguments: Tensor) -> Tensor:
        predicted = predict(*arguments)
        return predicted * float("nan") if next(calls) in steps else predicted

    monkeypatch.setattr(base, "predict", predict_or_break)


def test_a_step_that_is_not_finite_changes_nothing(
    base: StableDiffusion, examples: Examples, entry: BaseModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = decide(SMALL | {"steps": 24}, entry, seed=1, images=4, subject="x")
    broken_at({3}, monkeypatch, base)
    two = run(base, examples, config, stop_at=2)
    monkeypatch.undo()
    broken_at({3}, monkeypatch, base)
    three = run(base, examples, config, stop_at=3)
    assert same(two.snapshots[-1].weights.own, three.snapshots[-1].weights.own)
    assert all(torch.isfinite(moment).all() for moment in three.snapshots[-1].weights.optimizer.values())
    monkeypatch.undo()
    broken_at({3}, monkeypatch, base)
    whole = run(base, examples, config)
    assert [notice.reason for notice in whole.all(Noticed)] == ["NON_FINITE_SKIPPED"]
    assert all(torch.isfinite(value).all() for value in whole.learned.adapter["unet"].values())


def test_a_training_that_breaks_goes_back_and_goes_on_at_half_the_rate(
    base: StableDiffusion, examples: Examples, entry: BaseModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = decide(SMALL | {"steps": 40}, entry, seed=1, images=4, subject="x")
    broken_at(set(range(4, 14)), monkeypatch, base)
    found = run(base, examples, config)
    assert [notice.reason for notice in found.all(Noticed)] == ["LEARNING_RATE_LOWERED"]
    assert found.snapshots[-1].standing.lowered == 1


def test_a_training_that_stays_broken_fails(
    base: StableDiffusion, examples: Examples, entry: BaseModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = decide(SMALL | {"steps": 12}, entry, seed=1, images=4, subject="x")
    broken_at(set(range(2, 1000)), monkeypatch, base)
    with pytest.raises(NonFiniteLoss, match="up to 12"):
        run(base, examples, config)
    assert not hasattr(base.denoiser, "peft_config")
