"""Which GPUs are there, and which worker gets which."""

from pathlib import Path

import pytest

from trainer_service.gpus import gpu_of_each_worker, visible_gpus
from trainer_service.warm_worker import child_environment


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    """/dev of a container that was given the GPUs 2 and 11 of its machine."""
    for name in ("nvidia2", "nvidia11", "nvidiactl", "nvidia-uvm", "nvidia-caps", "null"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("listed", "gpus"),
    [
        (None, ["0", "1"]),
        ("", []),
        ("-1", []),
        ("3", ["3"]),
        ("3, 5,7", ["3", "5", "7"]),
        ("0,-1,1", ["0"]),
        ("MIG-a1,MIG-b2", ["MIG-a1", "MIG-b2"]),
    ],
)
def test_gpus_are_those_that_cuda_would_see(devices: Path, listed: str | None, gpus: list[str]) -> None:
    environ = {} if listed is None else {"CUDA_VISIBLE_DEVICES": listed}
    assert visible_gpus(environ, devices) == gpus


@pytest.mark.parametrize(
    ("workers", "gpus", "each"),
    [
        (None, [], [None]),
        (None, ["0", "1"], ["0", "1"]),
        (0, ["0"], []),
        (1, ["4", "5"], ["4"]),
        (2, [], [None, None]),
        (3, ["4", "5"], ["4", "5", "4"]),
    ],
)
def test_each_worker_gets_a_gpu_of_its_own_while_there_are_enough(
    workers: int | None, gpus: list[str], each: list[str | None]
) -> None:
    assert gpu_of_each_worker(workers, gpus) == each


def test_a_child_sees_its_own_gpu_alone_and_what_the_operator_set() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "4,5", "OMP_NUM_THREADS": "8", "HOME": "/home"}
    child = child_environment(environ, "5")
    assert (child["CUDA_VISIBLE_DEVICES"], child["OMP_NUM_THREADS"], child["HOME"]) == ("5", "8", "/home")
    assert child_environment({}, None)["OMP_NUM_THREADS"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in child_environment({}, None)
