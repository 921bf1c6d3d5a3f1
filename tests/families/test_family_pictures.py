"""Every family draws what plain diffusers draws: from our own steps, alone and among others, with any adapters.

Equality is the design's: final float32 latents within 1e-3 at most and 1e-4 on average.
"""

import logging
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from base_models.adapters.adapter_export import KeyNames, renamed, stored_tensors, write_safetensors
from base_models.catalog import BaseModelEntry
from base_models.pipelines import adaptable_modules
from base_models.prompt_tokens import PromptTokens
from inference_service.denoising.latent_preview import LatentPreview
from inference_service.generation import GenerationRequest, Prompt
from inference_service.start_pictures import Start
from tests.families.family_case import FamilyCase
from tests.random_adapter import random_adapter
from tests.unit.inference.quick_requests import quick_request
from tests.unit.inference.step_rows import StepRows

SEED = 3
# So different in length that no filling up makes them equal.
PROMPTS = ("a picture of sks person", "a cat with a red hat" + ", blue street" * 9)


def request_of(entry: BaseModelEntry, case: FamilyCase, **changes: Any) -> GenerationRequest:
    """Not square, guided where the family is."""
    fields: dict[str, Any] = {
        "guidance_scale": 1.0 if entry.guidance == "none" else 3.0,
        "negative_prompt": case.negative_prompt if entry.guidance == "classifier_free" else "",
        "scheduler": case.scheduler,
        "width": case.size,
        "height": 2 * case.size,
        "prompts": (Prompt(PROMPTS[0], (SEED,)),),
    }
    return quick_request(SEED, **(fields | changes))


def drawn(case: FamilyCase, plain: Any, request: GenerationRequest, output_type: str, **told: Any) -> Any:
    """By the pipeline. told: more that it is told."""
    return plain(
        prompt=[request.prompts[task.prompt_index].text for task in request.tasks],
        generator=[torch.Generator().manual_seed(task.seed) for task in request.tasks],
        num_inference_steps=request.steps,
        width=request.width,
        height=request.height,
        output_type=output_type,
        **case.options(request),
        **told,
    ).images


def latents_of(case: FamilyCase, plain: Any, steps: StepRows, request: GenerationRequest, **told: Any) -> Tensor:
    """Final latents_BCHW by the pipeline."""
    shape = steps.base.latent_shape(request.width, request.height)
    return case.latents(plain, drawn(case, plain, request, "latent", **told), shape)


def assert_equal_latents(found: Tensor, wanted: Tensor) -> None:
    difference = (found - wanted).abs()
    assert difference.max() <= 1e-3
    assert difference.mean() <= 1e-4


def adapter(case: FamilyCase, plain: Any, seed: int, rank: int = 4) -> bytes:
    return random_adapter(adaptable_modules(plain), case.adapted, seed, rank)


def test_steps_draw_the_pipelines_pictures(
    case: FamilyCase, entry: BaseModelEntry, plain: Any, steps: StepRows
) -> None:
    request = request_of(entry, case, prompts=(Prompt(PROMPTS[0], (3,)), Prompt(PROMPTS[1], (4, 5))))
    job = steps.add(request)
    found = steps.run()
    wanted_BCHW = latents_of(case, plain, steps, request)
    for seed, wanted_CHW in zip((3, 4, 5), wanted_BCHW, strict=True):
        assert_equal_latents(found[job, seed], wanted_CHW)
    with torch.no_grad():
        pixels_BCHW = steps.base.decode_latents(torch.stack([found[job, seed] for seed in (3, 4, 5)]))
    assert ((pixels_BCHW / 2 + 0.5).clamp(0, 1) - drawn(case, plain, request, "pt")).abs().max() <= 1e-3


def test_its_own_pictures_are_the_pipelines_at_its_defaults(
    case: FamilyCase, entry: BaseModelEntry, base: Any, plain: Any
) -> None:
    defaults = entry.generation
    pixels_BCHW = base.generate([PROMPTS[0], PROMPTS[1]], [4, 5], case.size)
    request = request_of(
        entry,
        case,
        prompts=(Prompt(PROMPTS[0], (4,)), Prompt(PROMPTS[1], (5,))),
        steps=defaults.steps,
        guidance_scale=defaults.guidance_scale,
        negative_prompt="",
        height=case.size,
    )
    assert (pixels_BCHW / 2 + 0.5 - drawn(case, plain, request, "pt")).abs().max() <= 1e-3
    assert (pixels_BCHW[0] - pixels_BCHW[1]).abs().max() > 0.05


@pytest.mark.parametrize("key_names", ["diffusers", "kohya"])
def test_plain_diffusers_loads_every_key_of_an_export_and_draws_what_steps_draw_with_the_adapter(
    case: FamilyCase,
    entry: BaseModelEntry,
    plain: Any,
    steps: StepRows,
    tmp_path: Path,
    key_names: KeyNames,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if key_names not in case.read_by_diffusers:
        pytest.skip(f"diffusers reads no {key_names} names of a copy of this size")
    body, request = adapter(case, plain, seed=1), request_of(entry, case)
    untuned_BCHW = latents_of(case, plain, steps, request)
    exported = write_safetensors(renamed(stored_tensors(body), key_names, entry.pipeline), {"modelspec.title": "x"})
    (tmp_path / "exported.safetensors").write_bytes(exported)
    with caplog.at_level(logging.WARNING):
        plain.load_lora_weights(tmp_path, weight_name="exported.safetensors")
    # Of missing and unexpected keys it would complain.
    assert caplog.messages == []
    for prefix, module in adaptable_modules(plain).items():
        worn = sum(".lora_A." in name for name in module.state_dict())
        assert worn == sum(name.startswith(f"{prefix}.") and ".lora_A." in name for name in stored_tensors(body))
    wanted_BCHW = latents_of(case, plain, steps, request)
    job = steps.add(request, [(body, 1.0)])
    assert_equal_latents(steps.run()[job, SEED], wanted_BCHW[0])
    assert (wanted_BCHW - untuned_BCHW).abs().max() > 0.01


def test_a_picture_that_starts_from_another_is_the_pipelines(
    case: FamilyCase, entry: BaseModelEntry, plain: Any, steps: StepRows
) -> None:
    if case.from_picture is None:
        pytest.skip("diffusers starts this family from no picture")
    picture_HWC = np.random.default_rng(0).integers(0, 256, (2 * case.size, case.size, 3), dtype=np.uint8)
    request = request_of(entry, case, start=Start(picture_HWC, None, 0.5, None, "", ""))
    with torch.no_grad():
        latents_BCHW = case.encode(plain, torch.tensor(picture_HWC).permute(2, 0, 1)[None] / 127.5 - 1)
    pipeline = getattr(diffusers, case.from_picture)(**plain.components)
    pipeline.set_progress_bar_config(disable=True)
    job = steps.add(request)
    found = steps.run()[job, SEED]
    # Of latents it draws no sample, so that the noise comes first, as in an image from noise. Of four steps it runs two
    # at 0.4 too, because it rounds up: see start_latents.py.
    for strength in (0.5, 0.4):
        wanted_BCHW = latents_of(case, pipeline, steps, request, image=latents_BCHW, strength=strength)
        assert_equal_latents(found, wanted_BCHW[0])
    assert (found - latents_of(case, plain, steps, request)[0]).abs().max() > 0.01


def test_the_longest_prompt_is_read_to_its_end(
    case: FamilyCase, entry: BaseModelEntry, plain: Any, steps: StepRows
) -> None:
    tokens = PromptTokens(entry)
    longest = "a"
    while tokens.count(f"a {longest} cat") <= entry.max_prompt_tokens:
        longest = f"a {longest}"
    found = []
    for text in (f"{longest} cat", f"{longest} hat"):
        assert tokens.limit - 3 <= tokens.count(text) <= tokens.limit
        request = request_of(entry, case, prompts=(Prompt(text, (SEED,)),), steps=2)
        job = steps.add(request)
        found.append(steps.run()[job, SEED])
        assert_equal_latents(found[-1], latents_of(case, plain, steps, request)[0])
    assert not torch.equal(*found)


def test_rows_of_mixed_adapters_steps_and_prompts_are_those_of_each_alone(
    case: FamilyCase, entry: BaseModelEntry, plain: Any, steps: StepRows
) -> None:
    outfits = [
        [(adapter(case, plain, 1), 1.0)],
        [(adapter(case, plain, 2, rank=2), 0.7), (adapter(case, plain, 3), -0.4)],
        [],
    ]
    requests = [
        request_of(entry, case, prompts=(Prompt(PROMPTS[index % 2], (index,)),), steps=3 + index, **guidance)
        for index, guidance in enumerate([{}, {"guidance_scale": 1.0}, {}])
    ]
    alone = []
    for index, (request, worn) in enumerate(zip(requests, outfits, strict=True)):
        job = steps.add(request, worn)
        alone.append(steps.run()[job, index])
    jobs = []
    for request, worn in zip(requests, outfits, strict=True):
        jobs.append(steps.add(request, worn))
        # The next joins while this one runs, so that no two rows are at the same step.
        steps.loop.step()
    together = steps.run()
    for index, job in enumerate(jobs):
        assert_equal_latents(together[job, index], alone[index])
    assert (alone[0] - alone[2]).abs().max() > 0.01


def test_a_preview_has_the_pictures_proportions_and_shows_which_it_is(case: FamilyCase, base: Any) -> None:
    """Random autoencoders keep nothing of a picture's colours; that a preview shows them is held with toon-64."""
    preview = LatentPreview.fit(base)
    pixels_BCHW = torch.stack([torch.full((3, 2 * case.size, case.size), level) for level in (-0.5, 0.5)])
    with torch.no_grad():
        dark_HWC, light_HWC = (preview.draw(latents_CHW) for latents_CHW in base.encode_images(pixels_BCHW))
    assert dark_HWC.shape[0] == 2 * dark_HWC.shape[1]
    assert (dark_HWC != light_HWC).any()
