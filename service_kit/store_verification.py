"""Runs the checks of a store one after the other and leaves nothing behind.

Its one rule: three verdicts, not two. A store that is away or slow is `unanswered`; only what it did can make it fail.
"""

import logging
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from service_kit import schema
from service_kit.store import ObjectStore, StoreError, StoreUnavailable
from service_kit.store_bench import Bench, Broken, Effort
from service_kit.store_checks import CHECKS, Check

Verdict = Literal["passed", "failed", "unanswered"]

# Finds what a store does always, well below a second. What it does now and then is for the thorough run, which takes
# a minute: SeaweedFS has those who lose a race wait for whole seconds.
QUICK = Effort(writers=2, rounds=3, whole=False)
_SWEEPERS = 12

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What came of one check. `seen` is what the store did, or why that is not known."""

    check: str
    promise: str
    needed_for: str
    verdict: Verdict
    seen: str
    duration_s: float


def verify(here: ObjectStore, there: ObjectStore, run: str, effort: Effort) -> Generator[Outcome, None, None]:
    """Check one store over two connections, check by check; what was written is deleted at the end, however it comes.

    run: an id of nobody else's, which keeps runs at one time apart.
    """
    bench = Bench(here, there, schema.verification_prefix(run), effort)
    try:
        for check in CHECKS:
            if effort.whole or not check.heavy:
                yield _outcome(check, bench)
    finally:
        _sweep(bench)


def _outcome(check: Check, bench: Bench) -> Outcome:
    started_s = time.monotonic()
    verdict: Verdict
    try:
        verdict, seen = "passed", check.run(bench)
    except Broken as error:
        verdict, seen = "failed", str(error)
    except StoreUnavailable as error:
        verdict, seen = "unanswered", str(error)
    except StoreError as error:
        # Refused, or missing right after it was written.
        verdict, seen = "failed", f"{type(error).__name__}: {error}"
    return Outcome(check.name, check.promise, check.needed_for, verdict, seen, time.monotonic() - started_s)


def _sweep(bench: Bench) -> None:
    def delete(key: str) -> None:
        try:
            bench.here.delete(key)
        except StoreError as error:
            _logger.warning("left behind in the object store: %s (%s)", key, error)

    with ThreadPoolExecutor(_SWEEPERS) as pool:
        list(pool.map(delete, bench.keys))
