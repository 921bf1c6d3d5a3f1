"""What the trainer's unit tests build on: a store in memory, a clock that is set, and a dataset of real pictures."""

import io
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from PIL import Image

from base_models.catalog import read_allow_list
from service_kit.adapter_manifest import ConsentEntry
from service_kit.memory_store import MemoryStore
from service_kit.names import DatasetName
from trainer_service import picture_doctor
from trainer_service.datasets import Datasets
from trainer_service.training_request import TrainingRequest
from trainer_service.trainings import Trainings
from trainer_service.upload import UploadedImage

BUNDLED_SET = Path(__file__).parents[3] / "base_models" / "toon_64" / "sets" / "micah-b" / "train"


@dataclass
class Clock:
    """A clock that a test sets."""

    time: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class Trainer:
    """Datasets and trainings over a store in memory."""

    def __init__(self, store: MemoryStore | None = None, require_consent: bool = False) -> None:
        self.store = store or MemoryStore()
        self.clock = Clock()
        self.datasets = Datasets(self.store, self.clock, picture_doctor)
        self.base_models = read_allow_list(["toon-64"])
        # Words are near enough to tokens for a limit to be met or exceeded.
        self.trainings = Trainings(
            self.store,
            self.datasets,
            self.base_models,
            lambda entry, prompt: len(prompt.split()),
            self.clock,
            require_consent=require_consent,
        )

    def dataset(
        self,
        dataset_id: str = "cat",
        count: int = 16,
        caption: str | None = None,
        consent: ConsentEntry | None = None,
    ) -> DatasetName:
        """A dataset of `count` bundled pictures."""
        record = self.datasets.create("", dataset_id, "", "", consent)
        self.datasets.add(record.name, [self.datasets.keep(record.name, image) for image in bundled(count, caption)])
        return record.name


def bundled(count: int = 16, caption: str | None = None) -> list[UploadedImage]:
    """The first bundled pictures, with their own captions or a given one."""
    paths = sorted(BUNDLED_SET.glob("*.png"))[:count]
    return [
        UploadedImage(
            path.name, path.with_suffix(".txt").read_text().strip() if caption is None else caption, path.read_bytes()
        )
        for path in paths
    ]


def plain_png(colour: str = "teal", size: int = 64) -> bytes:
    """A picture of one colour: the doctor refuses it."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(file, "PNG")
    return file.getvalue()


def request(**changes: object) -> TrainingRequest:
    """A CreateTraining request that is right but for `changes`."""
    values: dict[str, object] = {
        "parent": "",
        "dataset": "projects/default/datasets/cat",
        "adapter_id": "cat",
        "base_model": "",
        "trigger_word": "",
        "class_noun": "",
        "config": {},
        "request_id": "",
        "validate_only": False,
        "new_version": False,
    }
    return TrainingRequest(**(values | changes))  # type: ignore[arg-type]
