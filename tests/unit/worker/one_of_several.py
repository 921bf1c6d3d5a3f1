"""One of several processes that train together: a program for tests, which its test runs in one process to compare.

`python -m tests.unit.worker.one_of_several FOLDER` with a launcher's environment carries out every variant and leaves
`{variant}-{process}.safetensors`, its weights, and `{process}.json`, all else, in FOLDER.
"""

import dataclasses
import json
import sys
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from torch import Tensor

from base_models.catalog import read_allow_list
from base_models.families.stable_diffusion import StableDiffusion
from tests.unit.worker.loop_runs import bundled_examples
from trainer_service.training_config import decide
from trainer_service.worker import gradients
from trainer_service.worker.autocast import accelerator_for
from trainer_service.worker.examples import Examples
from trainer_service.worker.exit_code import ExitCode
from trainer_service.worker.processes import Dismissed, dismiss, exchange, join
from trainer_service.worker.training_loop import Noticed, Snapshot, Step, Validated, train

SMALL = {
    "steps": 2,
    "batch_size": 4,
    "rank": 2,
    "learning_rate": 1e-4,
    "warmup_steps": 0,
    "targets": "attention",
    "sample_every": 0,
    "validate_every": 0,
}


@dataclass(frozen=True)
class Variant:
    """A training. `memory`: pictures at a time that process 1's memory does for; `broken`: steps that are NaN."""

    given: dict[str, object] = field(default_factory=dict)
    memory: int | None = None
    broken: range = range(0)
    added_up: bool = True


VARIANTS = {
    "in bfloat16": Variant({"precision": "bfloat16", "batch_size": 2}),
    "plain": Variant(),
    "uneven": Variant({"batch_size": 3}),
    "too few": Variant({"batch_size": 1}),
    "accumulated": Variant({"batch_size": 3, "gradient_accumulation": 2}),
    "validated": Variant({"adapter_type": "dora", "text_encoder_learning_rate": 1e-4, "validate_every": 2}),
    "out of memory": Variant(memory=1),
    "lowered": Variant({"steps": 22, "batch_size": 2}, broken=range(4, 12)),
    "not added up": Variant(added_up=False),
}


@dataclass
class Found:
    """What a process saw of a training. Losses by step."""

    losses: dict[int, float] = field(default_factory=dict)
    validations: list[float] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def quarters(examples: Examples) -> Examples:
    """A corner of each picture, for the time that it saves."""
    latents = tuple(latents_CHW[:, :8, :8] for latents_CHW in examples.subject.latents)
    subject = dataclasses.replace(examples.subject, latents=latents)
    return dataclasses.replace(examples, subject=subject, validation=subject)


def carry_out(
    base: StableDiffusion, examples: Examples, variant: Variant, process: int
) -> tuple[Found, dict[str, Tensor]]:
    """Train; process 0 alone takes a snapshot on the way. The last weights, by name."""
    (entry,) = read_allow_list(["toon-64"]).values()
    config = decide(SMALL | variant.given, entry, seed=5, images=4, subject="x")
    found, weights = Found(), dict[str, Tensor]()
    with ExitStack() as stack:
        stack.enter_context(_faulty(base, variant, process))
        stack.enter_context(nullcontext() if variant.added_up else patch.object(gradients, "added_up", lambda own: own))
        moments = train(
            base, examples, config, accelerator_for(config, base.device), None, lambda step: process == 0 and step == 2
        )
        for moment in moments:
            match moment:
                case Step():
                    found.losses |= {reading.step: reading.loss for reading in moment.readings}
                case Validated():
                    found.validations.append(moment.loss)
                case Noticed():
                    found.notices.append(moment.reason)
                case Snapshot():
                    weights = moment.weights.own
    return found, weights


def _faulty(base: StableDiffusion, variant: Variant, process: int) -> AbstractContextManager[object]:
    """Have process 1 run out of memory, and predictions of some steps (one part each, in each process) be NaN."""
    predict, calls = base.predict, iter(range(1, 1_000_000))

    def predict_with_faults(noisy_BCHW: Tensor, *others: Tensor) -> Tensor:
        call = next(calls)
        if process == 1 and variant.memory is not None and len(noisy_BCHW) > variant.memory:
            raise torch.OutOfMemoryError("device out of memory")
        predicted_BCHW = predict(noisy_BCHW, *others)
        return predicted_BCHW * float("nan") if call in variant.broken else predicted_BCHW

    return patch.object(base, "predict", predict_with_faults)


def main() -> None:
    folder = Path(sys.argv[1])
    this = join()
    (entry,) = read_allow_list(["toon-64"]).values()
    base = StableDiffusion(entry, this.device)
    examples = quarters(bundled_examples(base, entry))
    seen = {}
    for name, variant in VARIANTS.items():
        found, weights = carry_out(base, examples, variant, this.process_index)
        save_file(weights, folder / f"{name}-{this.process_index}.safetensors")
        seen[name] = vars(found)
    (folder / f"{this.process_index}.json").write_text(json.dumps(seen))
    if this.process_index == 0:
        dismiss(ExitCode.HANDED_OVER)
        sys.exit(ExitCode.DONE)
    try:
        exchange("still here")
    except Dismissed as word:
        sys.exit(word.exit_code)


if __name__ == "__main__":
    main()
