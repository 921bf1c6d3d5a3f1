"""What CreateTraining refuses of hyper-parameters and base models."""

import math
from typing import Any

from personae.v1 import training_pb2
from tests.bad_inputs.trainer_cases import NOWHERE, invalid, train


def config(**values: Any) -> training_pb2.TrainingConfig:
    """Hyper-parameters."""
    return training_pb2.TrainingConfig(**values)


_EVERY_HYPER_PARAMETER = {
    "rank 0": {"rank": 0},
    "rank -1": {"rank": -1},
    "rank 10000": {"rank": 10_000},
    "no steps": {"steps": 0},
    "a billion steps": {"steps": 10**9},
    "no learning rate": {"learning_rate": 0.0},
    "a learning rate that is no number": {"learning_rate": math.nan},
    "an infinite learning rate": {"learning_rate": math.inf},
    "a learning rate of a billion": {"learning_rate": 1e9},
}

CASES = [
    *(
        invalid(
            15,
            what,
            "CreateTraining",
            train(f"{NOWHERE}/datasets/none", config=config(**wrong)),
            f"training.config.{next(iter(wrong))}",
        )
        for what, wrong in _EVERY_HYPER_PARAMETER.items()
    ),
    invalid(
        15,
        "all of them together",
        "CreateTraining",
        train(
            f"{NOWHERE}/datasets/none",
            config=config(
                steps=0, rank=-1, learning_rate=math.nan, batch_size=10_000, resolution=65, checkpoint_every=10**9
            ),
        ),
        *(
            f"training.config.{name}"
            for name in ("steps", "rank", "learning_rate", "batch_size", "resolution", "checkpoint_every")
        ),
    ),
    *(
        invalid(
            16,
            f"the base model {name}",
            "CreateTraining",
            train(f"{NOWHERE}/datasets/none", base_model=name),
            "training.base_model",
            says=("toon-64",),
        )
        for name in ("attacker/repo", "/etc", "https://example.org/model")
    ),
]
