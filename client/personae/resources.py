"""What the services keep, as plain frozen dataclasses: datasets, trainings, adapters.

Nothing here knows protobuf; `wire.py` builds these from messages.
"""

from dataclasses import dataclass, field
from datetime import datetime

from personae.training_config import TrainingConfig
from personae.vocabulary import Preset

_CAPTION_TEMPLATE = "a picture of {trigger_word} {class_noun}, {caption}"  # the contract's default


@dataclass(frozen=True)
class ImageReport:
    """What the picture doctor found in one uploaded picture."""

    filename: str
    accepted: bool
    rejection: str
    """Why it was refused, for example `truncated` or `near-duplicate`; empty when accepted."""
    detail: str
    """What was found and what is allowed, for a person; empty when accepted."""
    width: int
    """In pixels, as stored; 0 where it could not be read."""
    height: int
    source_format: str
    """`JPEG`, `PNG`, `WEBP` or `HEIF`; empty when it is none of them."""
    conversions: tuple[str, ...]
    """What was changed while storing it."""
    caption: str
    digest: str
    """SHA-256 (hex) of the stored picture; empty when refused."""
    source_width: int
    """In pixels, of the file as it was uploaded; 0 where it could not be read."""
    source_height: int
    warnings: tuple[str, ...]
    """What may make it worth less, though it was accepted: `blurred`, `small` or `large`."""
    has_mask: bool


@dataclass(frozen=True)
class DatasetReport:
    """What the picture doctor found in a dataset."""

    ready: bool
    """Whether a training can start."""
    accepted_count: int
    rejected_count: int
    minimum_count: int
    """Fewest accepted pictures that a training starts with."""
    images: tuple[ImageReport, ...]
    """One for each uploaded picture, in order; empty in a listing."""
    advice: tuple[str, ...]
    """Sentences for a person: what would make the result better."""

    @property
    def rejected(self) -> tuple[ImageReport, ...]:
        """The pictures that no training will use."""
        return tuple(image for image in self.images if not image.accepted)


@dataclass(frozen=True)
class Consent:
    """Who gave the right to learn from pictures, and for what. Kept, not interpreted."""

    given_by: str
    """The person shown, a guardian, whoever owns the drawings; 1 to 200 characters."""
    purpose: str
    """For what, in their words; 1 to 500 characters."""
    evidence: str = ""
    """Where that is recorded, for example the number of a signed form; at most 500 characters."""


@dataclass(frozen=True)
class Dataset(DatasetReport):
    """Pictures to learn from, with the picture doctor's report."""

    name: str
    """`projects/{project}/datasets/{dataset}`"""
    create_time: datetime
    update_time: datetime
    digest: str
    """SHA-256 (hex) over the accepted pictures and captions: equal digests train alike."""
    consent: Consent | None
    """Who gave the right to learn from them; None where nobody said it."""


@dataclass(frozen=True)
class TrainingRecord:
    """A training as the server knew it at one moment."""

    name: str
    """`projects/{project}/trainings/{training}`"""
    state: str
    """`queued`, `preparing`, `training`, `publishing`, `succeeded`, `failed` or `cancelled`"""
    dataset: str
    adapter: str
    """The adapter version it publishes; it exists once the state is `succeeded`."""
    base_model: str
    trigger_word: str
    class_noun: str
    config: TrainingConfig = field(hash=False)
    """What was asked for."""
    effective_config: TrainingConfig = field(hash=False)
    """What is used: every key is there."""
    completed_steps: int
    create_time: datetime
    start_time: datetime | None
    """When a worker first took it; None while queued."""
    end_time: datetime | None
    failure_reason: str
    """Stable, for programs; empty unless it failed."""
    failure_message: str
    cancel_requested: bool
    licence: str
    """Under what licence the adapter may be used."""


@dataclass(frozen=True)
class TrainingPlan:
    """What a training would be and what it would need. None was created."""

    dataset: str
    """The dataset that was asked about, `projects/{project}/datasets/{dataset}`: `train` takes it."""
    report: DatasetReport
    """What the picture doctor found in it."""
    base_model: str
    trigger_word: str
    class_noun: str
    effective_config: TrainingConfig = field(hash=False)
    """What would be used: every key is there."""
    duration_s: float
    """Wall time from the moment a worker takes it."""
    peak_memory_bytes: int
    """Most device memory held at once."""
    basis: str
    """What time and memory were derived from, for a person."""
    device_memory_bytes: int = 0
    """Of the smallest GPU there; 0 where it is not known, or where there is none."""
    fits: bool | None = None
    """Whether it fits into that; None where that is 0."""
    smallest_preset: Preset | None = None
    """Where it does not fit: the preset that needs least."""
    least_memory_bytes: int = 0
    """What `smallest_preset` needs: where this is more than `device_memory_bytes`, none fits."""
    memory_advice: str = ""
    """The last four in words."""

    def summary(self) -> str:
        """One line for people, for example `about 4 min, 1.2 GB of device memory (an earlier training here)`."""
        time = f"{self.duration_s:.0f} s" if self.duration_s < 100 else f"{self.duration_s / 60:.0f} min"
        said = f"about {time}, {self.peak_memory_bytes / 1e9:.1f} GB of device memory ({self.basis})"
        return said if self.fits is not False else f"{said}; it does not fit: {self.memory_advice}"


@dataclass(frozen=True)
class Artifact:
    """A file that belongs to an adapter version."""

    artifact_id: str
    media_type: str
    size_bytes: int
    digest: str
    """SHA-256 (hex) of the content."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured of an adapter at the end of its training. None: it could not be measured."""

    judge: str
    """What measured it; numbers compare only under the same judge."""
    likeness: float | None
    """0: no more like the subject than without the adapter; 1: as alike as the training pictures among themselves."""
    obedience: float | None
    """Share of the pictures that show the scene that was asked for, 0 to 1. Higher is better."""
    memorisation: float | None
    """Above 1, pictures are nearer to training pictures than those are to each other: it copies."""
    diversity: float | None
    """0: always the same picture; 1: as varied as the training pictures."""

    def summary(self) -> str:
        """One line for people, for example `likeness 0.71, obedience 100 %, memorisation 0.8, diversity 0.9`."""
        parts = [
            f"{name} {value:{form}}{unit}"
            for name, value, form, unit in (
                ("likeness", self.likeness, ".2f", ""),
                ("obedience", None if self.obedience is None else 100 * self.obedience, ".0f", " %"),
                ("memorisation", self.memorisation, ".1f", ""),
                ("diversity", self.diversity, ".1f", ""),
            )
            if value is not None
        ]
        return ", ".join(parts) or "nothing could be measured"


@dataclass(frozen=True)
class Adapter:
    """One version of an adapter. It never changes."""

    name: str
    """`projects/{project}/adapters/{adapter}/versions/{version}`"""
    base_model: str
    base_model_digest: str
    training: str
    """The training that made it; empty where it was imported."""
    trigger_word: str
    class_noun: str
    rank: int
    targets: str
    create_time: datetime
    artifacts: tuple[Artifact, ...]
    """What can be downloaded, the adapter file first."""
    evaluation: Evaluation | None
    """How good it is; None where the server has no judge for the base model, or where that failed."""
    training_config: TrainingConfig = field(hash=False)
    """What it was trained with: every key is there; empty where it was imported."""
    dataset_digest: str
    """SHA-256 (hex) over the pictures and captions it was trained on; empty where it was imported."""
    chosen_step: int
    """Optimizer steps behind the published weights: those of the best validation, or all."""
    validation_loss: float | None
    """Validation loss at that step; None where nothing was validated."""
    licence: str
    """As the training's."""
    consent: Consent | None
    """As the dataset's when the training was created."""

    def prompt(self, scene: str = "") -> str:
        """A prompt that shows the subject, in `scene` where one is given, worded as the training's prompts were."""
        template = self.training_config.get("caption_template", _CAPTION_TEMPLATE)
        if "{caption}" not in template:
            template += ", {caption}"
        worded = template if scene else template.replace(", {caption}", "")
        worded = worded.replace("{trigger_word}", self.trigger_word).replace("{class_noun}", self.class_noun)
        return worded.replace("{caption}", scene)


@dataclass(frozen=True)
class ServedAdapter:
    """An adapter version that one inference server holds, and where."""

    adapter: str
    """`projects/{project}/adapters/{adapter}/versions/{version}`"""
    residency: str
    """How close to the GPU: `disk`, `host` (memory) or `slot` (of the GPU)"""
    size_bytes: int
    """What it takes there."""
    last_use_time: datetime
    """When a request or a preload last used it."""
    pinned: bool
    """Whether it stays in host memory."""


@dataclass(frozen=True)
class ServedBaseModel:
    """A base model that an inference server draws with, and what can be asked of it."""

    base_model: str
    digest: str
    """SHA-256 (hex) over its weight files."""
    size_step: int
    """Width and height are multiples of this, in pixels."""
    min_size: int
    max_size: int
    default_size: int
    max_prompt_tokens: int
    default_steps: int
    default_guidance_scale: float
    default_scheduler: str
    schedulers: tuple[str, ...]
    """All that it can draw with."""
    max_guidance_scale: float
    """The smallest is 1; 1: it was distilled to draw without guidance."""
    takes_negative_prompt: bool
    """Where not, one that is given is refused."""


@dataclass(frozen=True)
class ExportedAdapter:
    """An adapter in another program's key names, ready to be downloaded."""

    adapter: str
    """The adapter version that was exported."""
    artifact: Artifact
    model_card: Artifact
    """In Markdown: base model, trigger word, training, measurements, licence."""
