"""Which requests reach a server and when: arrivals, adapters by popularity, small and large. Pure; a seed decides all.

After the benchmarks of S-LoRA (Sheng et al. 2023, section 7: gaps between arrivals from a gamma distribution, adapters
by a power law) and Punica (Chen et al. 2023, section 7: distinct, uniform, skewed and identical adapters).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Popularity = Callable[[int, int, np.random.Generator], list[int]]
"""(adapters, requests, chance) -> the adapter of each request, counted from 0; 0 is the most popular."""

_SUBJECTS = ("a character", "a person", "an adventurer", "a pixel character", "a bearded character")
_MOODS = ("happy", "surprised", "sad", "angry", "smiling")
_CLOTHES = ("with a red hat", "with glasses", "with long hair", "with short hair", "in a green shirt")
_BACKGROUNDS = ("blue background", "green background", "white background", "yellow background")


@dataclass(frozen=True)
class Kind:
    """What a request asks for, apart from its adapter: one picture, of this many pixels and steps."""

    name: str
    width: int
    height: int
    steps: int


@dataclass(frozen=True)
class PlannedRequest:
    """One request for one picture. `adapter` is a number, None for the base model alone."""

    kind: Kind
    adapter: int | None
    prompt: str
    seed: int


def uniform(adapters: int, requests: int, chance: np.random.Generator) -> list[int]:
    """Each adapter as likely as any other."""
    return [int(adapter) for adapter in chance.integers(adapters, size=requests)]


def zipf(exponent: float) -> Popularity:
    """The n-th adapter n^-exponent times as likely as the first; Punica's "skewed" has 1.5."""

    def drawn(adapters: int, requests: int, chance: np.random.Generator) -> list[int]:
        weights = np.arange(1, adapters + 1, dtype=float) ** -exponent
        return [int(adapter) for adapter in chance.choice(adapters, size=requests, p=weights / weights.sum())]

    return drawn


def power_law(exponent: float) -> Popularity:
    """As S-LoRA draws them: u^(1/exponent) of all adapters with u uniform, so 1 is uniform, and less is more skewed."""

    def drawn(adapters: int, requests: int, chance: np.random.Generator) -> list[int]:
        return [int(place * adapters) for place in chance.power(exponent, size=requests)]

    return drawn


def identical(adapters: int, requests: int, chance: np.random.Generator) -> list[int]:
    """One adapter for all."""
    return [0] * requests


def distinct(adapters: int, requests: int, chance: np.random.Generator) -> list[int]:
    """All adapters in turn: no two alike among any `adapters` requests in a row."""
    return [number % adapters for number in range(requests)]


def arrivals_s(rate_per_s: float, cv: float, requests: int, seed: int) -> list[float]:
    """When each request arrives. cv: of the gaps, standard deviation over mean; 1 is Poisson, more comes in bursts."""
    chance = np.random.default_rng((seed, 0))
    gaps_s = chance.gamma(shape=1 / cv**2, scale=cv**2 / rate_per_s, size=requests)
    return [float(time_s) for time_s in np.cumsum(gaps_s)]


def planned(
    mix: Sequence[tuple[Kind, float]], adapters: int, popularity: Popularity | None, requests: int, seed: int
) -> list[PlannedRequest]:
    """Requests in the order of their sending. mix: kinds with their shares; popularity: None for no adapters at all."""
    chance = np.random.default_rng((seed, 1))
    shares = np.array([share for _, share in mix])
    kinds = chance.choice(len(mix), size=requests, p=shares / shares.sum())
    seeds = chance.integers(2**32, size=requests)
    prompts = [", ".join(_described(chance)) for _ in range(requests)]
    # Last, so that the same seed gives the same pictures whatever wears them.
    worn = [None] * requests if popularity is None else popularity(adapters, requests, chance)
    return [
        PlannedRequest(mix[kind][0], adapter, prompt, int(drawn))
        for kind, adapter, prompt, drawn in zip(kinds, worn, prompts, seeds, strict=True)
    ]


def _described(chance: np.random.Generator) -> tuple[str, ...]:
    subject, mood, clothes, background = (
        words[chance.integers(len(words))] for words in (_SUBJECTS, _MOODS, _CLOTHES, _BACKGROUNDS)
    )
    return f"{subject} {clothes}", mood, background
