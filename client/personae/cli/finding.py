"""What `personae doctor` found: one finding a check, with what to do where something is not as it should be."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True)
class Finding:
    """`remedy` is empty where there is nothing to do; only `wrong` keeps something from working."""

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


def gib(size_bytes: float) -> str:
    """A size for people, in GiB."""
    return f"{size_bytes / 2**30:.1f} GiB"
