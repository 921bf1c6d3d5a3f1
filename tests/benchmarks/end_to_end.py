"""From CreateTraining to a published adapter, on a real trainer service and a real object store: where the time goes.

Its one rule: it knows only what a caller knows, the event log and its times. The loop's own time is that between two
reports of progress with nothing else between them; what goes beyond it is named.

usage: measure_end_to_end(steps), as `make bench` does
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from personae.v1 import trainer_pb2_grpc, training_pb2
from tests.integration.trainer_calls import TrainerCalls
from tests.real_store import running_store
from tests.service_process import running_service, service_environment

MOST_OVERHEAD = 0.15
"""Of everything but the loop, the evaluation and the sample pictures, as a share of the loop."""
_LONG_S = 3600.0
_APART = ("loop", "samples", "evaluating")


@dataclass
class Spent:
    """Seconds by part, in their order. `loop` is that of all steps."""

    parts: dict[str, float] = field(default_factory=dict)

    @property
    def overhead(self) -> float:
        """Everything but the loop, the evaluation and the samples, as a share of the loop."""
        return sum(seconds for part, seconds in self.parts.items() if part not in _APART) / self.parts["loop"]

    def table(self) -> str:
        """Lines of Markdown."""
        rows = [f"| {part} | {seconds:.2f} |" for part, seconds in self.parts.items()]
        return "\n".join(("| part | seconds |", "| --- | --- |", *rows, f"| in all | {sum(self.parts.values()):.2f} |"))


def spent(created_s: float, events: Sequence[training_pb2.TrainingEvent]) -> Spent:
    """Where the time went, from the call (by the clock of events) to the last event. The training was not resumed."""
    started = [(_stage(event), _time_s(event)) for event in events if event.WhichOneof("kind") == "stage_started"]
    ends = [began_s for _, began_s in started[1:]] + [_time_s(events[-1])]
    parts = {"waiting": started[0][1] - created_s}
    for (stage, began_s), ended_s in zip(started, ends, strict=True):
        if stage == "stepping":
            parts |= _inside_stepping(began_s, ended_s, events)
        else:
            parts[stage] = ended_s - began_s
    return Spent(parts)


def _inside_stepping(began_s: float, ended_s: float, events: Sequence[training_pb2.TrainingEvent]) -> dict[str, float]:
    """The stage's parts: from one progress to the next there are steps and what was reported between the two."""
    plain_s, plain_steps = 0.0, 0
    sampling: list[tuple[float, int]] = []
    between: set[str] = set()
    latest_s, latest_step = began_s, 0
    for event in events:
        kind = event.WhichOneof("kind")
        if kind != "progress" or event.progress.stage != training_pb2.STAGE_STEPPING:
            between.add(kind)
            continue
        took_s, steps = _time_s(event) - latest_s, event.progress.completed - latest_step
        if "sample_ready" in between:
            sampling.append((took_s, steps))
        # The first interval holds the building of the adapter.
        elif latest_step and not between & {"checkpoint_saved", "validated"}:
            plain_s, plain_steps = plain_s + took_s, plain_steps + steps
        between, latest_s, latest_step = set(), _time_s(event), event.progress.completed
    if not plain_steps:
        raise ValueError("the training is too short: no two reports of progress have nothing but steps between them")
    # Samples of the last step come after the last progress.
    if "sample_ready" in between:
        sampling.append((ended_s - latest_s, 0))
    a_step_s = plain_s / plain_steps
    loop_s = a_step_s * latest_step
    samples_s = sum(took_s - steps * a_step_s for took_s, steps in sampling)
    return {
        "loop": loop_s,
        "samples": samples_s,
        "building, validating, checkpointing": ended_s - began_s - loop_s - samples_s,
    }


def measure_end_to_end(steps: int) -> None:
    """Print where the time of two trainings went: by a worker that has just started, and by a warm one."""
    print(f"\n## End to end: the preset of toon-64 at {steps} steps, sixteen pictures\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began_s = time.monotonic()
        with (
            running_store(folder) as store,
            running_service("trainer_service", service_environment(store), folder / "trainer.log") as service,
            grpc.insecure_channel(service.address) as channel,
        ):
            print(f"store and service started in {time.monotonic() - began_s:.1f} s; that is apart\n")
            calls = TrainerCalls(trainer_pb2_grpc.TrainerServiceStub(channel))
            dataset = calls.dataset()
            for worker in ("a worker that has just started", "a warm worker"):
                created_s = time.time()
                training = calls.train(dataset, steps=steps, seed=1, sample_every=max(1, steps // 4))
                found = spent(created_s, list(calls.events(training.name, timeout_s=_LONG_S)))
                print(f"{worker}:\n\n{found.table()}\n")
                print(f"overhead: {found.overhead:.1%} of the loop (aim: {MOST_OVERHEAD:.0%})\n", flush=True)


def _stage(event: training_pb2.TrainingEvent) -> str:
    return training_pb2.Stage.Name(event.stage_started.stage).removeprefix("STAGE_").lower().replace("_", " ")


def _time_s(event: training_pb2.TrainingEvent) -> float:
    return event.time.ToNanoseconds() / 1e9
