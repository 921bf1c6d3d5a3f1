"""A request for images, before and after its check, and the bounds of what may be asked for.

A `GenerationDraft` is what a caller sent. `generation_check.py` turns it into a `GenerationRequest`, in which nothing
is missing.
"""

from dataclasses import dataclass

from base_models.traits.family_traits import SchedulerName
from inference_service.delivery import Delivery, FileFormat
from inference_service.start_pictures import Start, StartDraft, first_step
from service_kit.names import (
    DEFAULT_PROJECT,
    AdapterName,
    AdapterVersionName,
    MalformedName,
    check_id,
    parse_adapter,
)

MAX_PROMPTS = 64
MAX_IMAGES_PER_PROMPT = 64
MAX_IMAGES = 256
MAX_ADAPTERS = 8
MAX_ADAPTER_WEIGHT = 2.0
MAX_STEPS = 150
MAX_GUIDANCE_SCALE = 30.0
MAX_SEED = 2**63 - 1
# Counting tokens takes time, so texts that cannot be right are not counted.
MAX_PROMPT_CHARACTERS = 10_000


@dataclass(frozen=True)
class PromptDraft:
    """A prompt as sent; no seeds means that they are to be drawn."""

    text: str
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class AdapterDraft:
    """An adapter as named by the caller."""

    adapter: str
    weight: float | None = None


@dataclass(frozen=True)
class GenerationDraft:
    """A request as sent: None and empty text mean the default. Choices that are unknown are passed on as text."""

    prompts: tuple[PromptDraft, ...]
    project: str = ""
    base_model: str = ""
    adapters: tuple[AdapterDraft, ...] = ()
    images_per_prompt: int | None = None
    negative_prompt: str = ""
    guidance_scale: float | None = None
    steps: int | None = None
    scheduler: str | None = None
    width: int | None = None
    height: int | None = None
    file_format: str | None = None
    preview_every: int = 0
    delivery: str | None = None
    start: StartDraft | None = None


@dataclass(frozen=True)
class Prompt:
    """A prompt and the seed of each image wanted of it."""

    text: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class WantedAdapter:
    """An adapter and its weight; a name without a version means the latest."""

    name: AdapterName | AdapterVersionName
    weight: float


@dataclass(frozen=True)
class ImageTask:
    """One image of a request. `index` counts over prompts and their seeds from 0."""

    index: int
    prompt_index: int
    seed: int


@dataclass(frozen=True)
class GenerationRequest:
    """What will be computed, every default filled in. Sizes are in pixels."""

    project: str
    """Whose request it is: the id of a project."""
    base_model: str
    adapters: tuple[WantedAdapter, ...]
    prompts: tuple[Prompt, ...]
    images_per_prompt: int
    negative_prompt: str
    guidance_scale: float
    steps: int
    scheduler: SchedulerName
    width: int
    height: int
    file_format: FileFormat
    preview_every: int
    delivery: Delivery
    start: Start | None = None

    @property
    def first_step(self) -> int:
        """The first denoising step that is run, of `steps`, from 0."""
        return 0 if self.start is None else first_step(self.steps, self.start.strength)

    @property
    def steps_run(self) -> int:
        """Denoising steps that each image takes."""
        return self.steps - self.first_step

    @property
    def tasks(self) -> tuple[ImageTask, ...]:
        """Every image, in order."""
        places = [(number, seed) for number, prompt in enumerate(self.prompts) for seed in prompt.seeds]
        return tuple(ImageTask(index, number, seed) for index, (number, seed) in enumerate(places))


def project_of(draft: GenerationDraft) -> str:
    """Id of the project whose request it is: the one it names, else that of its first adapter, else the default.

    Where these are malformed, which the check says, it counts as the default's.
    """
    try:
        if draft.project or not draft.adapters:
            return check_id(draft.project or DEFAULT_PROJECT)
        return parse_adapter(draft.adapters[0].adapter).project
    except MalformedName:
        return DEFAULT_PROJECT


def image_count(draft: GenerationDraft) -> int:
    """Images that a draft asks for."""
    images_per_prompt = 1 if draft.images_per_prompt is None else draft.images_per_prompt
    return sum(len(prompt.seeds) or images_per_prompt for prompt in draft.prompts)
