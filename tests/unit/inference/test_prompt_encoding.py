"""Prompts are encoded once, in batches, and a failing one fails alone."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from inference_service.denoising.prompt_encoding import PromptEncoder

PATIENCE_S = 30.0


class CountingBase:
    """Encodes a text as its length, after `gate` was opened."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        self.gate.wait(PATIENCE_S)
        self.batches.append(list(prompts))
        if "broken" in prompts:
            raise ValueError("cannot be encoded")
        return {"prompt_BTD": torch.tensor([[[float(len(text))]] for text in prompts])}


class NoLayers:
    """Wears nothing."""

    def wear(self, outfits: Sequence[Any], doubled: int) -> None:
        assert not any(outfits)
        assert doubled == 0


def test_what_waits_together_is_encoded_together_and_only_once() -> None:
    base = CountingBase()
    encoder = PromptEncoder(base, NoLayers())  # type: ignore[arg-type]
    try:
        first = encoder.encode("a", ())
        others = [encoder.encode(text, ()) for text in ("bb", "ccc", "bb")]
        base.gate.set()
        assert [answer.result(PATIENCE_S)["prompt_BTD"].item() for answer in (first, *others)] == [1, 2, 3, 2]
        assert encoder.encode("ccc", ()).result(PATIENCE_S)["prompt_BTD"].shape == (1, 1, 1)
        assert sorted(text for batch in base.batches for text in batch) == ["a", "bb", "ccc"]
        assert len(base.batches) <= 2
    finally:
        encoder.close()


def test_a_prompt_that_fails_fails_alone_and_is_tried_again_when_asked_again() -> None:
    base = CountingBase()
    encoder = PromptEncoder(base, NoLayers())  # type: ignore[arg-type]
    try:
        answers = [encoder.encode(text, ()) for text in ("a", "broken", "bb")]
        base.gate.set()
        assert answers[2].result(PATIENCE_S)["prompt_BTD"].item() == 2
        with pytest.raises(ValueError, match="cannot be encoded"):
            answers[1].result(PATIENCE_S)
        tried = len(base.batches)
        with pytest.raises(ValueError, match="cannot be encoded"):
            encoder.encode("broken", ()).result(PATIENCE_S)
        assert len(base.batches) == tried + 1
    finally:
        encoder.close()


def test_who_gives_up_waiting_takes_nothing_from_the_others() -> None:
    base = CountingBase()
    encoder = PromptEncoder(base, NoLayers())  # type: ignore[arg-type]

    async def scenario() -> float:
        impatient, patient = (asyncio.wrap_future(encoder.encode("a", ())) for _ in range(2))
        impatient.cancel()
        await asyncio.sleep(0)
        base.gate.set()
        async with asyncio.timeout(PATIENCE_S):
            return (await patient)["prompt_BTD"].item()

    try:
        assert asyncio.run(scenario()) == 1
    finally:
        encoder.close()


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    # Room for two answers of four bytes.
    monkeypatch.setattr("inference_service.denoising.prompt_encoding._REMEMBERED_BYTES", 8)
    base = CountingBase()
    base.gate.set()
    encoder = PromptEncoder(base, NoLayers())  # type: ignore[arg-type]
    try:
        for text in ("a", "b", "a", "c", "a", "b"):
            encoder.encode(text, ()).result(PATIENCE_S)
        # b had to go for c, and was the longest unused then.
        assert [text for batch in base.batches for text in batch] == ["a", "b", "c", "b"]
    finally:
        encoder.close()
