"""The check of a request for images. Pure: tokens, seeds and pictures come from what is passed in.

Its one rule: everything that is wrong is said at once.
"""

from collections.abc import Callable
from typing import get_args

from base_models.catalog import BaseModelEntry
from inference_service.cost import image_cost
from inference_service.delivery import MAX_INLINE_BYTES, Delivery, FileFormat, most_bytes
from inference_service.generation import (
    MAX_ADAPTER_WEIGHT,
    MAX_ADAPTERS,
    MAX_GUIDANCE_SCALE,
    MAX_IMAGES,
    MAX_IMAGES_PER_PROMPT,
    MAX_PROMPT_CHARACTERS,
    MAX_PROMPTS,
    MAX_SEED,
    MAX_STEPS,
    GenerationDraft,
    GenerationRequest,
    Prompt,
    WantedAdapter,
    image_count,
    project_of,
)
from inference_service.picture_decoding import Decode
from inference_service.start_pictures import ReadImage, first_step, open_start
from service_kit.errors import Violations
from service_kit.names import DEFAULT_PROJECT, AdapterName, MalformedName, check_id, parse_adapter


def check(
    draft: GenerationDraft,
    base_model: BaseModelEntry,
    allowed: tuple[str, ...],
    count_tokens: Callable[[str], int],
    draw_seed: Callable[[], int],
    max_cost: int,
    read_image: ReadImage,
    decode: Decode,
) -> GenerationRequest:
    """Fill in the defaults of `base_model`, which the draft names or implies. Raises InvalidRequest.

    allowed: the names of all base models that are served; where the draft names none of them, `base_model` is any.
    max_cost: the most that the images of one request may cost together, in passes.
    Where all else is right, an uploaded picture to start from is read: what `read_image` raises is raised, and
    what `decode` raises besides PictureRefused.
    """
    violations = Violations()
    try:
        check_id(draft.project or DEFAULT_PROJECT)
    except MalformedName as error:
        violations.add("project", str(error))
    violations.check(
        not draft.base_model or draft.base_model in allowed,
        "base_model",
        draft.base_model,
        f"one of {', '.join(allowed)}",
    )
    adapters = _check_adapters(draft, violations)
    images_per_prompt = 1 if draft.images_per_prompt is None else draft.images_per_prompt
    _check_prompts(draft, images_per_prompt, base_model.max_prompt_tokens, count_tokens, violations)
    if draft.negative_prompt:
        _check_text("negative_prompt", draft.negative_prompt, base_model.max_prompt_tokens, count_tokens, violations)
    defaults = base_model.generation
    steps = defaults.steps if draft.steps is None else draft.steps
    guidance_scale = defaults.guidance_scale if draft.guidance_scale is None else draft.guidance_scale
    scheduler = draft.scheduler or defaults.scheduler
    file_format = draft.file_format or "png"
    delivery = draft.delivery or "inline"
    width = base_model.default_size if draft.width is None else draft.width
    height = base_model.default_size if draft.height is None else draft.height
    violations.check(1 <= steps <= MAX_STEPS, "steps", steps, f"1 to {MAX_STEPS}")
    _check_guidance(draft.negative_prompt, guidance_scale, base_model, violations)
    schedulers = base_model.traits.schedulers
    violations.check(scheduler in schedulers, "scheduler", scheduler, f"one of {', '.join(schedulers)}")
    violations.check(
        file_format in get_args(FileFormat), "format", file_format, f"one of {', '.join(get_args(FileFormat))}"
    )
    violations.check(
        0 <= draft.preview_every <= MAX_STEPS, "preview_every", draft.preview_every, f"0 (none) to {MAX_STEPS}"
    )
    violations.check(delivery in get_args(Delivery), "delivery", delivery, f"one of {', '.join(get_args(Delivery))}")
    for field, size in (("width", width), ("height", height)):
        violations.check(
            size % base_model.size_step == 0 and base_model.min_size <= size <= base_model.max_size,
            field,
            size,
            f"a multiple of {base_model.size_step} from {base_model.min_size} to {base_model.max_size}",
        )
    opened = None if draft.start is None else open_start(draft.start, steps, violations, decode)
    sized = not {"format", "delivery", "width", "height"} & {violation.field for violation in violations.found}
    if sized and delivery == "inline" and most_bytes(file_format, width, height) > MAX_INLINE_BYTES:
        outgrows = f"a {file_format} of {width} x {height} pixels, which may outgrow a message"
        violations.add("delivery", f"found 'inline'; allowed is bucket for {outgrows}; or ask for less")
    steps_run = steps if opened is None else steps - first_step(steps, opened.strength)
    _check_cost(draft, width, height, steps_run, guidance_scale, base_model, max_cost, violations)
    violations.raise_if_any()
    return GenerationRequest(
        project=project_of(draft),
        base_model=base_model.name,
        adapters=adapters,
        prompts=tuple(
            Prompt(prompt.text, prompt.seeds or tuple(draw_seed() for _ in range(images_per_prompt)))
            for prompt in draft.prompts
        ),
        images_per_prompt=images_per_prompt,
        negative_prompt=draft.negative_prompt,
        guidance_scale=guidance_scale,
        steps=steps,
        scheduler=scheduler,  # type: ignore[arg-type]
        width=width,
        height=height,
        file_format=file_format,  # type: ignore[arg-type]
        preview_every=draft.preview_every,
        delivery=delivery,  # type: ignore[arg-type]
        start=None if opened is None else opened.fitted(width, height, read_image, decode),
    )


def max_guidance_scale(base_model: BaseModelEntry) -> float:
    """The largest that a base model takes; 1 where it takes none."""
    return 1.0 if base_model.guidance == "none" else MAX_GUIDANCE_SCALE


def takes_negative_prompt(base_model: BaseModelEntry) -> bool:
    """Whether a negative prompt has any effect: it is the other side of classifier-free guidance."""
    return base_model.guidance == "classifier_free"


def _check_adapters(draft: GenerationDraft, violations: Violations) -> tuple[WantedAdapter, ...]:
    violations.check(len(draft.adapters) <= MAX_ADAPTERS, "adapters", len(draft.adapters), f"at most {MAX_ADAPTERS}")
    wanted: list[WantedAdapter] = []
    seen: dict[AdapterName, int] = {}
    for index, adapter in enumerate(draft.adapters[:MAX_ADAPTERS]):
        weight = 1.0 if adapter.weight is None else adapter.weight
        bound = MAX_ADAPTER_WEIGHT
        violations.check(-bound <= weight <= bound, f"adapters[{index}].weight", weight, f"{-bound:g} to {bound:g}")
        try:
            name = parse_adapter(adapter.adapter)
        except MalformedName as error:
            violations.add(f"adapters[{index}].adapter", str(error))
            continue
        # Two versions of one adapter count as the same: without a version, which one is meant changes with time.
        first = seen.setdefault(name if isinstance(name, AdapterName) else name.adapter_name, index)
        if first != index:
            violations.add(
                f"adapters[{index}].adapter", f"found the adapter of adapters[{first}] again; name each once"
            )
        wanted.append(WantedAdapter(name, weight))
    return tuple(wanted)


def _check_prompts(
    draft: GenerationDraft,
    images_per_prompt: int,
    max_tokens: int,
    count_tokens: Callable[[str], int],
    violations: Violations,
) -> None:
    most = MAX_IMAGES_PER_PROMPT
    violations.check(1 <= len(draft.prompts) <= MAX_PROMPTS, "prompts", len(draft.prompts), f"1 to {MAX_PROMPTS}")
    violations.check(1 <= images_per_prompt <= most, "images_per_prompt", images_per_prompt, f"1 to {most}")
    for index, prompt in enumerate(draft.prompts[:MAX_PROMPTS]):
        _check_text(f"prompts[{index}].text", prompt.text, max_tokens, count_tokens, violations)
        violations.check(len(prompt.seeds) <= most, f"prompts[{index}].seeds", len(prompt.seeds), f"at most {most}")
        for place, seed in enumerate(prompt.seeds[:most]):
            violations.check(0 <= seed <= MAX_SEED, f"prompts[{index}].seeds[{place}]", seed, "0 to 2^63 - 1")
    images = image_count(draft)
    violations.check(images <= MAX_IMAGES, "prompts", f"{images} images", f"at most {MAX_IMAGES} images in one request")


def _check_guidance(
    negative_prompt: str, guidance_scale: float, base_model: BaseModelEntry, violations: Violations
) -> None:
    most = max_guidance_scale(base_model)
    allowed = f"1 to {most:g}" if most > 1 else f"1, since {base_model.name} was distilled to draw without guidance"
    # The comparison is false for NaN too.
    violations.check(1 <= guidance_scale <= most, "guidance_scale", guidance_scale, allowed)
    if negative_prompt and not takes_negative_prompt(base_model):
        violations.add(
            "negative_prompt",
            f"found one; allowed is none, since {base_model.name} draws without classifier-free guidance",
        )


def _check_cost(
    draft: GenerationDraft,
    width: int,
    height: int,
    steps: int,
    guidance_scale: float,
    base_model: BaseModelEntry,
    max_cost: int,
    violations: Violations,
) -> None:
    costly = ("prompts", "steps", "guidance_scale", "width", "height")
    if any(violation.field in costly for violation in violations.found):
        # Nobody knows what was meant.
        return
    images = image_count(draft)
    cost = images * image_cost(width, height, steps, base_model.is_guided(guidance_scale), base_model.default_size)
    if cost > max_cost:
        found = f"found {images} images of {steps} steps at {width} x {height}, which cost {cost} passes"
        for field in costly:
            violations.add(field, f"{found}; allowed are {max_cost} in one request")


def _check_text(
    field: str, text: str, max_tokens: int, count_tokens: Callable[[str], int], violations: Violations
) -> None:
    if not text.strip():
        violations.add(
            field, "found nothing but spaces; say what to draw" if text else "found nothing; say what to draw"
        )
    elif "\0" in text:
        violations.add(field, "found a NUL character; allowed is text")
    elif len(text) > MAX_PROMPT_CHARACTERS:
        violations.add(field, f"found {len(text)} characters; allowed are {MAX_PROMPT_CHARACTERS}")
    elif (tokens := count_tokens(text)) > max_tokens:
        violations.add(field, f"found {tokens} tokens; allowed are {max_tokens}; shorten it, it is never cut for you")
