"""Requests that are complete and quick to compute."""

from typing import Any

from inference_service.generation import GenerationRequest, Prompt

TEXT = "a character with a red hat"


def quick_request(*seeds: int, **changes: Any) -> GenerationRequest:
    """One prompt with these seeds, four steps; `changes` replace any field."""
    values: dict[str, Any] = {
        "project": "default",
        "base_model": "toon-64",
        "adapters": (),
        "prompts": (Prompt(TEXT, seeds),),
        "images_per_prompt": 1,
        "negative_prompt": "",
        "guidance_scale": 3.0,
        "steps": 4,
        "scheduler": "ddim",
        "width": 64,
        "height": 64,
        "file_format": "png",
        "preview_every": 0,
        "delivery": "inline",
    }
    return GenerationRequest(**(values | changes))
