"""The stage between proof and publishing: what it leaves, and that nothing that happens in it loses the adapter."""

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
import torch
from torch import Tensor

from base_models.catalog import BaseModelEntry
from base_models.families.stable_diffusion import StableDiffusion
from base_models.likeness.judge import Judge
from base_models.traits.family_traits import GenerationDefaults
from service_kit.adapter_manifest import AdapterManifest, read_manifest
from tests.colour_judge import ColourJudge
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service.events import Ended, Evaluated, Event, Notice, Progress, StageStarted
from trainer_service.journal import Journal
from trainer_service.lifecycle import Stage, State
from trainer_service.training_record import TrainingRecord
from trainer_service.training_store import TrainingStore
from trainer_service.worker.evaluating import MAX_TAKES
from trainer_service.worker.interrupts import Interrupts
from trainer_service.worker.run import ExitCode, Workbench, run_training

LoadJudge = Callable[[BaseModelEntry], Judge | None]


class Evaluating:
    """A queued training of two steps over a store in memory, and workers that take it one after another."""

    def __init__(self, base: StableDiffusion) -> None:
        self.base = base
        self.interrupts = Interrupts()
        self._trainer = Trainer()
        self.store = self._trainer.store
        self._trainer.dataset(count=4)
        config = {"steps": 2, "batch_size": 1, "warmup_steps": 1, "seed": 1, "learning_rate": 0.01}
        config |= {"sample_every": 0, "validate_every": 0}
        self.name = self._trainer.trainings.create(request(config=config)).record.name
        self._workers = 0

    def take(self, judge_for: LoadJudge) -> ExitCode:
        """One more worker's go at it."""
        self._workers += 1
        self.interrupts = Interrupts()
        bench = Workbench(
            store=self.store,
            base_models=self._trainer.base_models,
            holder=f"worker-{self._workers}",
            now=lambda: datetime.now(UTC),
            device=torch.device("cpu"),
            judge_for=judge_for,
            bases={"toon-64": self.base},
        )
        return run_training(bench, self.name, TrainingStore(self.store).read(self.name)[1], self.interrupts)

    def bury(self) -> None:
        """What the dispatcher does when it sees the worker dead."""
        TrainingStore(self.store).change(self.name, lambda record: record.abandoned(record.holder))

    @property
    def record(self) -> TrainingRecord:
        return TrainingStore(self.store).read(self.name)[0]

    @property
    def manifest(self) -> AdapterManifest | None:
        return read_manifest(self.store, self.record.adapter)

    @property
    def events(self) -> list[Event]:
        async def follow() -> list[Event]:
            return [event async for event in Journal(self.store, self.name).follow(0)]

        return asyncio.run(asyncio.wait_for(follow(), 10))

    @property
    def notices(self) -> list[str]:
        return [event.what.reason for event in self.events if isinstance(event.what, Notice)]


@pytest.fixture(scope="module")
def quick_base(entry: BaseModelEntry) -> StableDiffusion:
    """The bundled base model, which draws in two steps."""
    quick = dataclasses.replace(entry, generation=GenerationDefaults(2, 3.0, "ddim"))
    return StableDiffusion(quick, torch.device("cpu"))


@pytest.fixture
def evaluating(quick_base: StableDiffusion) -> Evaluating:
    return Evaluating(quick_base)


def colours(entry: BaseModelEntry) -> Judge:
    return ColourJudge()


def test_the_numbers_are_in_the_manifest_and_in_the_last_events(evaluating: Evaluating) -> None:
    assert evaluating.take(colours) is ExitCode.DONE
    happened = [event.what for event in evaluating.events]
    stages = [what.stage for what in happened if isinstance(what, StageStarted)]
    assert stages[-4:] == [Stage.STEPPING, Stage.PROVING, Stage.EVALUATING, Stage.UPLOADING]
    evaluated, uploading, ended = happened[-3:]
    assert isinstance(evaluated, Evaluated)
    assert uploading == StageStarted(stage=Stage.UPLOADING)
    assert isinstance(ended, Ended)
    assert evaluating.manifest is not None
    assert evaluating.manifest.evaluation == evaluated.evaluation
    assert evaluated.evaluation.judge == "colours-1"
    assert None not in evaluated.evaluation.model_dump().values()
    counts = [what for what in happened if isinstance(what, Progress) and what.stage is Stage.EVALUATING]
    # Three scenes twice, and four training pictures; of progress that comes quickly the end is told by what follows.
    assert {count.total for count in counts} == {10}


@pytest.mark.slow
def test_the_same_training_gives_the_same_numbers(quick_base: StableDiffusion) -> None:
    found = []
    for _ in range(2):
        evaluating = Evaluating(quick_base)
        evaluating.take(colours)
        assert evaluating.manifest is not None
        found.append(evaluating.manifest.evaluation)
    assert found[0] == found[1]


def test_without_a_judge_nothing_is_measured_and_nothing_is_said(evaluating: Evaluating) -> None:
    assert evaluating.take(lambda entry: None) is ExitCode.DONE
    assert evaluating.manifest is not None
    assert evaluating.manifest.evaluation is None
    assert not [event for event in evaluating.events if isinstance(event.what, Evaluated | Notice)]


class Failing(ColourJudge):
    """Looks at identities, and has no memory left for anything else."""

    def appearance(self, pixels_BCHW: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")


def no_memory(entry: BaseModelEntry) -> Judge:
    raise MemoryError


@pytest.mark.parametrize("judge_for", [lambda entry: Failing(), no_memory], ids=["while looking", "while loading"])
def test_a_judge_that_fails_costs_the_numbers_and_not_the_adapter(evaluating: Evaluating, judge_for: LoadJudge) -> None:
    assert evaluating.take(judge_for) is ExitCode.DONE
    assert evaluating.record.state is State.SUCCEEDED
    assert evaluating.notices == ["EVALUATION_FAILED"]
    assert evaluating.manifest is not None
    assert evaluating.manifest.evaluation is None


def test_drawing_that_fails_with_the_adapter_on_leaves_the_base_model_bare(entry: BaseModelEntry) -> None:
    class Exhausted(StableDiffusion):
        def generate(
            self, prompts: Sequence[str], seeds: Sequence[int], size: int, between_steps: Callable[[], None]
        ) -> Tensor:
            if any(".lora_" in name for name, _ in self.denoiser.named_parameters()):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return torch.zeros(len(prompts), 3, size, size)

    base = Exhausted(entry, torch.device("cpu"))
    before = base.denoiser.state_dict().keys()
    evaluating = Evaluating(base)
    assert evaluating.take(colours) is ExitCode.DONE
    assert evaluating.notices == ["EVALUATION_FAILED"]
    assert base.denoiser.state_dict().keys() == before


def test_a_cancel_during_the_evaluation_publishes_nothing(evaluating: Evaluating) -> None:
    class Cancelling(ColourJudge):
        def identity(self, pixels_BCHW: Tensor, training_NCHW: Tensor) -> Tensor:
            evaluating.interrupts.cancelled.set()
            return super().identity(pixels_BCHW, training_NCHW)

    assert evaluating.take(lambda entry: Cancelling()) is ExitCode.DONE
    assert evaluating.record.state is State.CANCELLED
    assert evaluating.manifest is None
    assert evaluating.notices == []


@pytest.mark.slow
def test_a_drain_during_the_evaluation_hands_over_and_the_next_worker_evaluates_again(evaluating: Evaluating) -> None:
    def draining(entry: BaseModelEntry) -> Judge:
        evaluating.interrupts.draining.set()
        return ColourJudge()

    assert evaluating.take(draining) is ExitCode.HANDED_OVER
    assert evaluating.record.state is State.QUEUED
    assert evaluating.manifest is None
    assert evaluating.take(colours) is ExitCode.DONE
    assert evaluating.manifest is not None
    assert evaluating.manifest.evaluation is not None
    assert evaluating.notices == ["RESUMED"]


@pytest.mark.slow
def test_an_evaluation_that_kills_workers_is_left_out_in_the_end(evaluating: Evaluating) -> None:
    def deadly(entry: BaseModelEntry) -> Judge:
        raise SystemExit

    for _ in range(MAX_TAKES + 1):
        with pytest.raises(SystemExit):
            evaluating.take(deadly)
        evaluating.bury()
    assert evaluating.take(deadly) is ExitCode.DONE
    assert evaluating.manifest is not None
    assert evaluating.manifest.evaluation is None
    assert evaluating.notices[-1] == "EVALUATION_FAILED"
