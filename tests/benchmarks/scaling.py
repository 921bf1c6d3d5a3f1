"""What a cluster of so many GPUs carries, calculated from measured times: the tables of docs/scaling.md.

Its one rule: no figure comes from here. Service times are arguments, requests of the bucket are those that
`tests.benchmarks.store_requests` counted, and the rest is formulas, each with its source.

usage: python -m tests.benchmarks.scaling [--images-per-s 1.74] [--training-s 96] [--adapters 100000] …
"""

import argparse
import math
import sys
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Shares: TypeAlias = npt.NDArray[np.float64]

GPUS = (1, 10, 100, 1_000)
# Counted on 2026-11-23 (docs/measurements/2026-11-23-store-requests.md).
LISTS_PER_S_OF_A_TRAINER = 0.4
LOOKS_PER_S = 0.4
"""Each look of a trainer process reads the record of every training in the queue that it does not carry out itself."""
PUTS_PER_IMAGE = 2.0
GETS_PER_MISS = 2.0


@dataclass(frozen=True)
class Load:
    """What is asked, and how it is answered. Times in seconds, rates by the second."""

    images_per_s: float
    """Of one GPU that is full."""
    training_s: float
    requests_per_s_of_a_training: float
    adapters: int
    zipf: float
    cached: int
    """Adapters that one replica keeps near."""
    store_gets_per_s: float


def erlang_c(servers: int, busy: float) -> float:
    """The share of arrivals that wait, M/M/c. busy: the mean number of busy servers, below `servers`.

    By the recursion of Erlang's B; see Kleinrock, Queueing Systems I (1975), section 3.5.
    """
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = busy * blocked / (count + busy * blocked)
    return blocked / (1 - busy / servers * (1 - blocked))


def mean_wait_s(servers: int, service_s: float, utilisation: float) -> float:
    """The mean wait for one of `servers`, M/M/c."""
    return erlang_c(servers, servers * utilisation) * service_s / (servers * (1 - utilisation))


def utilisation_for(servers: int, service_s: float, wait_s: float) -> float:
    """The highest utilisation at which the mean wait is at most `wait_s`."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_wait_s(servers, service_s, middle) <= wait_s else (low, middle)
    return low


def popularity(adapters: int, exponent: float) -> Shares:
    """Zipf: the share of requests that ask for the k-th most popular adapter."""
    weights = np.arange(1, adapters + 1, dtype=np.float64) ** -exponent
    return weights / weights.sum()


def hit_rate(shares: Shares, cached: int) -> float:
    """Of a least-recently-used cache: Che's approximation (Che, Tung, Wang, IEEE JSAC 20(7), 2002)."""
    if cached >= len(shares):
        return 1.0
    low, high = 0.0, 1.0
    while _held(shares, high) < cached:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _held(shares, middle) < cached else (low, middle)
    return float((shares * -np.expm1(-shares * low)).sum())


def _held(shares: Shares, window: float) -> float:
    return float(-np.expm1(-shares * window).sum())


def rows(load: Load, gpus: int, training_share: float, wait_s: float) -> list[str]:
    """One line of each table for a cluster of that size."""
    # One GPU serves or trains; more are divided.
    workers = max(1, round(gpus * training_share))
    serving = max(1, gpus - workers)
    trains_at = utilisation_for(workers, load.training_s, wait_s)
    trainings_per_s = trains_at * workers / load.training_s
    images_per_s = 0.8 * serving * load.images_per_s
    shares = popularity(load.adapters, load.zipf)
    # Any replica may be asked for any adapter; with affinity each keeps others than its neighbours.
    alone, affine = hit_rate(shares, load.cached), hit_rate(shares, load.cached * serving)
    running = trains_at * workers
    # Every process looks at all that the others carry out.
    looks = LOOKS_PER_S * running * max(0, workers + 2 - 1)
    looks_by_jobs = LOOKS_PER_S * running * 2
    of_trainings = running * load.requests_per_s_of_a_training
    of_images = images_per_s * (PUTS_PER_IMAGE + 1 + GETS_PER_MISS * (1 - alone))
    lists = LISTS_PER_S_OF_A_TRAINER * (workers + 2)
    every = of_trainings + of_images + lists
    return [
        f"| {gpus:,} | {serving:,} | {images_per_s:,.1f} | {alone:.0%} | {affine:.0%} | {workers:,} | {trains_at:.0%} "
        f"| {3600 * trainings_per_s:,.0f} |",
        f"| {gpus:,} | {of_images:,.1f} | {of_trainings:,.1f} | {lists:,.1f} | {looks:,.0f} | {every + looks:,.0f} "
        f"| {every + looks_by_jobs - lists + 2 * LISTS_PER_S_OF_A_TRAINER:,.0f} |",
    ]


def most_workers(load: Load, utilisation: float = 0.9) -> int:
    """Worker pods at which their looks alone take all the reads that the store gives."""
    return int(math.sqrt(load.store_gets_per_s / (LOOKS_PER_S * utilisation)))


def main(argv: list[str]) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--images-per-s", type=float, default=1.74, help="of one full GPU")
    parser.add_argument("--training-s", type=float, default=96.0, help="from taken to published, on a warm worker")
    parser.add_argument("--requests-per-s-of-a-training", type=float, default=9.2, help="of the bucket, while it runs")
    parser.add_argument("--adapters", type=int, default=100_000, help="that callers ask for")
    parser.add_argument("--zipf", type=float, default=1.0, help="exponent of their popularity")
    parser.add_argument("--cached", type=int, default=90, help="adapters that one replica keeps near")
    parser.add_argument("--store-gets-per-s", type=float, default=5_500.0, help="reads that the bucket gives")
    parser.add_argument("--training-share", type=float, default=0.2, help="of the GPUs")
    parser.add_argument("--wait-s", type=float, default=60.0, help="mean wait of a training that is accepted")
    words = vars(parser.parse_args(argv))
    share, wait_s = words.pop("training_share"), words.pop("wait_s")
    load = Load(**words)
    tables = zip(*(rows(load, gpus, share, wait_s) for gpus in GPUS), strict=True)
    headings = (
        "| GPUs | replicas | images/s | hit rate | with affinity | workers | busy | trainings/h |",
        "| GPUs | images | trainings | lists | looks | requests/s in all | with Jobs |",
    )
    for heading, lines in zip(headings, tables, strict=True):
        print(heading, "|" + " --- |" * (heading.count("|") - 1), *lines, "", sep="\n")
    print(f"looks alone reach {load.store_gets_per_s:,.0f} reads/s at {most_workers(load)} worker pods")


if __name__ == "__main__":
    main(sys.argv[1:])
