"""Two real processes that train together compute what one computes alone, and decide alike."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from base_models.families.stable_diffusion import StableDiffusion
from tests.real_store import free_ports
from tests.unit.worker.loop_runs import same
from tests.unit.worker.one_of_several import VARIANTS, Found, carry_out, quarters
from trainer_service.worker.examples import Examples
from trainer_service.worker.exit_code import ExitCode

pytestmark = pytest.mark.slow

PROCESSES = 2
WITHIN_S = 240.0
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Together:
    """What each of the processes left."""

    found: list[dict[str, Found]]
    weights: list[dict[str, dict[str, Tensor]]]
    exit_statuses: list[int]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Together:
    folder = tmp_path_factory.mktemp("together")
    (port,) = free_ports(1)
    group = {"WORLD_SIZE": PROCESSES, "LOCAL_WORLD_SIZE": PROCESSES, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.unit.worker.one_of_several", str(folder)],
            cwd=ROOT,
            env=os.environ
            | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "RANK": str(rank), "LOCAL_RANK": str(rank)}
            | {name: str(value) for name, value in group.items()},
        )
        for rank in range(PROCESSES)
    ]
    try:
        exit_statuses = [process.wait(WITHIN_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
    seen = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(PROCESSES)]
    return Together(
        [{name: Found(**values) for name, values in by_name.items()} for by_name in seen],
        [{name: load_file(folder / f"{name}-{rank}.safetensors") for name in VARIANTS} for rank in range(PROCESSES)],
        exit_statuses,
    )


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest between two sets of weights."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


ALIKE = [name for name in VARIANTS if name not in ("in bfloat16", "not added up")]


@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_compute_what_one_does(
    name: str, together: Together, base: StableDiffusion, examples: Examples
) -> None:
    alone, weights = carry_out(base, quarters(examples), VARIANTS[name], process=0)
    found = together.found[0][name]
    losses = {int(step): loss for step, loss in found.losses.items()}
    assert losses == pytest.approx(alone.losses, rel=1e-5, nan_ok=True)
    assert found.validations == pytest.approx(alone.validations, rel=1e-5)
    assert difference(together.weights[0][name], weights) < 1e-5


@pytest.mark.parametrize("name", [*ALIKE, "in bfloat16"])
def test_both_processes_have_the_same_weights_and_take_the_same_decisions(name: str, together: Together) -> None:
    assert same(together.weights[0][name], together.weights[1][name])
    assert repr(together.found[0][name]) == repr(together.found[1][name])


def test_a_share_that_is_not_added_up_would_show(together: Together) -> None:
    plain, broken = ([weights[name] for weights in together.weights] for name in ("plain", "not added up"))
    assert difference(broken[0], plain[0]) > 1e-5
    assert difference(broken[0], broken[1]) > 1e-5


def test_what_happens_in_one_process_is_answered_by_both(together: Together) -> None:
    for found in together.found:
        assert found["out of memory"].notices == ["OUT_OF_MEMORY_RETRIED"]
        assert found["lowered"].notices == ["LEARNING_RATE_LOWERED"]


def test_process_0_sends_the_others_away_with_its_exit_code(together: Together) -> None:
    assert together.exit_statuses == [ExitCode.DONE, ExitCode.HANDED_OVER]
