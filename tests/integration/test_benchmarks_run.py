"""The benches that need a GPU or minutes run here in small, so that they do not rot; and their arithmetic is right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from personae.v1 import training_pb2 as pb
from tests.benchmarks.end_to_end import spent

ROOT = Path(__file__).parents[2]
TRAINING_GPU, SERVING, SERVING_GPU = (
    f"tests.benchmarks.{name}" for name in ("training_speed_gpu", "serving_speed", "serving_speed_gpu")
)
MODELS = ("sd15", "sdxl", "flux")
SERVING_TABLES = ("| load_lora_weights |", "| set_adapters |", "| grouped by adapter |", "| ours |", "at least 100.00%")


def bench(module: str, *arguments: str) -> str:
    """What a bench prints where no GPU is seen."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("module", [TRAINING_GPU, SERVING_GPU])
def test_without_a_gpu_its_bench_says_so(module: str) -> None:
    assert bench(module) == "skipped: there is no GPU that torch can use here\n"


@pytest.mark.slow
def test_the_bench_of_the_gpu_compares_losses_and_times_both_loops_and_a_training(tmp_path: Path) -> None:
    output = tmp_path / "said.md"
    said = bench(TRAINING_GPU, "--tiny", "--out", str(output))
    parts = (
        "- step 10: stock",
        "apart, of 0.001 allowed",
        "| stock |",
        "| ours |",
        "samples/s",
        "(MFU)",
        "GiB",
        "| in all |",
    )
    for model in MODELS:
        found = said.partition(f"## {model}\n")[2].partition("\n## ")[0]
        assert [part for part in parts if part not in found] == []
    assert output.read_text() == said
    assert "diffusers 0." in said


@pytest.mark.slow
def test_the_serving_bench_of_the_gpu_compares_pictures_and_times_both_engines(tmp_path: Path) -> None:
    output, models = tmp_path / "said.md", tmp_path / "models"
    said = bench(SERVING_GPU, "--tiny", "--out", str(output), "--models", str(models))
    parts = (
        "at least 100.00%",
        "Without adapters:",
        "another adapter:",
        "| plain diffusers |",
        "| ours |",
        "(MFU)",
        "GiB",
    )
    for model in MODELS:
        found = said.partition(f"## {model}\n")[2].partition("\n## ")[0]
        assert [part for part in parts if part not in found] == []
    assert output.read_text() == said
    assert sorted(path.name for path in models.iterdir()) == sorted(f"{model}-tiny" for model in MODELS)


@pytest.mark.slow
@pytest.mark.parametrize("module", [TRAINING_GPU, SERVING_GPU])
def test_the_bench_of_the_gpu_needs_no_object_store_and_no_grpc(module: str) -> None:
    without = "import sys; sys.modules.update(grpc=None, minio=None)"
    command = [sys.executable, "-c", f"{without}; import {module}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_the_serving_bench_compares_pictures_and_times_all_engines_over_real_ports(tmp_path: Path) -> None:
    output = tmp_path / "said.md"
    budget = ("--rounds", "1", "--seconds", "8", "--load-seconds", "4", "--waiting", "4", "--adapters", "4")
    said = bench(SERVING, *budget, "--steps", "2", "--output", str(output))
    headings = ("## Throughput: ", "## Latency: ", "## Small among large: ", "## A miss: ", "| ours, no adapters |")
    for part in (*SERVING_TABLES, *headings, "ours, of its upper bound: "):
        assert part in said
    assert output.read_text() == said


@pytest.mark.slow
def test_the_bench_of_loading_holds_a_first_and_a_later_load_against_reading() -> None:
    said = bench("tests.benchmarks.loading", "--medium", "--rounds", "1")
    for part in ("| reading the bytes |", "| loading, digest first |", "| loading, digest known |"):
        assert part in said


def event(at_s: float, **kind: object) -> pb.TrainingEvent:
    return pb.TrainingEvent(time=Timestamp(seconds=int(at_s), nanos=round(at_s % 1 * 1e9)), **kind)


def stage(at_s: float, stage: int) -> pb.TrainingEvent:
    return event(at_s, stage_started=pb.TrainingEvent.StageStarted(stage=stage))


def progress(at_s: float, completed: int) -> pb.TrainingEvent:
    return event(at_s, progress=pb.TrainingEvent.Progress(stage=pb.STAGE_STEPPING, completed=completed))


def test_the_time_of_a_training_is_shared_out_among_its_parts() -> None:
    events = [
        stage(12, pb.STAGE_LOADING_BASE_MODEL),
        stage(13, pb.STAGE_STEPPING),
        progress(16, 1),
        progress(18, 3),
        progress(20, 5),
        event(25, sample_ready=pb.TrainingEvent.SampleReady(step=6)),
        progress(27, 7),
        event(27.5, validated=pb.TrainingEvent.Validated(step=7)),
        event(28, checkpoint_saved=pb.TrainingEvent.CheckpointSaved(step=7)),
        progress(30, 8),
        stage(31, pb.STAGE_EVALUATING),
        stage(35, pb.STAGE_UPLOADING),
        event(36, ended=pb.TrainingEvent.Ended()),
    ]
    found = spent(10, events)
    assert found.parts == {
        "waiting": 2,
        "loading base model": 1,
        "loop": 8,
        "samples": 5,
        "building, validating, checkpointing": 5,
        "evaluating": 4,
        "uploading": 1,
    }
    assert found.overhead == pytest.approx((2 + 1 + 5 + 1) / 8)
    assert sum(found.parts.values()) == 36 - 10


def test_a_training_too_short_to_tell_its_pace_is_not_measured() -> None:
    events = [stage(0, pb.STAGE_STEPPING), progress(1, 1), event(2, ended=pb.TrainingEvent.Ended())]
    with pytest.raises(ValueError, match="too short"):
        spent(0, events)
