"""What an InferenceService refuses: the rows of the table that are its own."""

import math
from typing import Any

import grpc

from personae.v1 import inference_pb2 as pb
from tests.bad_inputs.case import Case
from tests.bad_inputs.hostile_adapters import HOSTILE_ADAPTERS
from tests.bad_inputs.trainer_cases import BAD_IDS

Code = grpc.StatusCode
Generate = pb.GenerateRequest
MEBIBYTE = 2**20


def generate(text: str = "a red hat", **fields: Any) -> Generate:
    """A request for one image of two steps that is right but for what is given."""
    return Generate(**({"prompts": [Generate.Prompt(text=text, seeds=[1])], "steps": 2} | fields))


def with_adapters(*names: str) -> Generate:
    """A request for one image with these."""
    return generate(adapters=[pb.AdapterWeight(adapter=name) for name in names])


def _refused(row: int, what: str, request: Generate, *fields: str, says: tuple[str, ...] = ()) -> Case:
    return Case(
        row,
        what,
        lambda world: world.inference("Generate", request),
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        frozenset(fields),
        says=says,
    )


def _unmet(row: int, what: str, adapter: str, reason: str, says: tuple[str, ...] = ()) -> Case:
    return Case(
        row,
        what,
        lambda world: world.inference("Generate", with_adapters(adapter)),
        Code.FAILED_PRECONDITION,
        reason,
        details=("PreconditionFailure",),
        says=says,
    )


def _missing(row: int, what: str, request: Generate) -> Case:
    return Case(
        row,
        what,
        lambda world: world.inference("Generate", request),
        Code.NOT_FOUND,
        "NOT_FOUND",
        details=("ResourceInfo",),
        says=("does not exist",),
    )


def _lost(what: str, adapter: str) -> Case:
    return Case(
        29, what, lambda world: world.inference("Generate", with_adapters(adapter)), Code.DATA_LOSS, "DATA_LOST"
    )


_ADAPTERS = "projects/default/adapters"

CASES = [
    _missing(3, "an adapter that is not there", with_adapters(f"{_ADAPTERS}/none")),
    _missing(4, "another project's adapter", with_adapters("projects/other/adapters/theirs/versions/1")),
    _missing(4, "another project's share", generate(project="other")),
    Case(
        5,
        "a hash that is none",
        lambda world: world.inference("LookUpImage", pb.LookUpImageRequest(digest="x")),
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        frozenset({"digest"}),
    ),
    *(
        _refused(5, f"an adapter called {bad_id[:8]!r}", with_adapters(f"{_ADAPTERS}/{bad_id}"), "adapters[0].adapter")
        for bad_id in BAD_IDS
    ),
    *(
        _refused(16, f"the base model {name}", generate(base_model=name), "base_model", says=("toon-64",))
        for name in ("attacker/repo", "/etc", "https://example.org/model")
    ),
    _unmet(27, "an adapter that is still training", f"{_ADAPTERS}/unborn/versions/1", "ADAPTER_STILL_TRAINING"),
    _unmet(
        28,
        "an adapter for another base model",
        f"{_ADAPTERS}/foreign/versions/1",
        "BASE_MODEL_MISMATCH",
        says=("other-base", "toon-64"),
    ),
    _lost("an adapter whose blob is missing", f"{_ADAPTERS}/missing/versions/1"),
    _lost("an adapter whose blob is torn", f"{_ADAPTERS}/torn/versions/1"),
    _lost("an adapter whose blob has another hash", f"{_ADAPTERS}/swapped/versions/1"),
    *(
        _unmet(30, f"an adapter file {what}", f"{_ADAPTERS}/hostile-{index}/versions/1", "ADAPTER_INVALID")
        for index, what in enumerate(HOSTILE_ADAPTERS)
    ),
    _refused(31, "a prompt of 100 KB", generate("word " * 20_000), "prompts[0].text"),
    _refused(31, "a prompt with NUL", generate("a\0b"), "prompts[0].text"),
    _refused(31, "a prompt of spaces", generate("   "), "prompts[0].text"),
    _refused(31, "a prompt of more tokens than are taken", generate("hat " * 200), "prompts[0].text", says=("tokens",)),
    *(_refused(32, f"a width of {width}", generate(width=width), "width") for width in (513, 0, -8, 100_000)),
    _refused(32, "no steps", generate(steps=0), "steps"),
    _refused(32, "no images", generate(images_per_prompt=0, prompts=[Generate.Prompt(text="x")]), "images_per_prompt"),
    _refused(
        32,
        "10,000 images",
        generate(images_per_prompt=10_000, prompts=[Generate.Prompt(text="x")]),
        "images_per_prompt",
        "prompts",
    ),
    _refused(32, "a guidance that is no number", generate(guidance_scale=math.nan), "guidance_scale"),
    _refused(
        32,
        "a weight of a billion",
        generate(adapters=[pb.AdapterWeight(adapter=f"{_ADAPTERS}/good", weight=1e9)]),
        "adapters[0].weight",
    ),
    _refused(32, "an unknown scheduler", generate(scheduler=99), "scheduler"),
    _refused(
        32,
        "all of them together",
        generate(width=513, height=-8, steps=0, guidance_scale=math.nan, scheduler=99),
        "width",
        "height",
        "steps",
        "guidance_scale",
        "scheduler",
    ),
    _refused(33, "nine adapters", with_adapters(*(f"{_ADAPTERS}/a{index}" for index in range(9))), "adapters"),
    _refused(33, "an adapter twice", with_adapters(*[f"{_ADAPTERS}/good"] * 2), "adapters[1].adapter"),
    Case(
        36,
        "a message over the limit",
        lambda world: world.inference("Generate", generate("x" * 5 * MEBIBYTE)),
        Code.RESOURCE_EXHAUSTED,
        "",
    ),
]
