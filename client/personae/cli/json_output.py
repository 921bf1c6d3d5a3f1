"""What commands write with --json: one object, or one a line where a command goes on for long.

Its one rule: a resource has the fields of the client's own class, by the same names; times are ISO 8601, bytes are left
out, and what is not a finite number is null, as JSON knows no other.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from personae.events import SampleReady, TrainingEvent


def write(told: Mapping[str, Any]) -> None:
    """Write one object as a line of stdout, at once."""
    print(json.dumps(plain(told), allow_nan=False), flush=True)


def event(happened: TrainingEvent, saved: Path | None) -> dict[str, Any]:
    """An event of a training, named after its class; a sample picture has the path that it was saved at, or null.

    An event of a kind that this client does not know is called `training_event`.
    """
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(happened).__name__).lower()
    path = {"path": saved} if isinstance(happened, SampleReady) else {}
    return {"event": name, **plain(happened), **path}


def plain(value: Any) -> Any:
    """The value in the types of JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: plain(found) for name, found in named.items() if not isinstance(found, bytes)}
    if isinstance(value, Mapping):
        return {str(name): plain(found) for name, found in value.items()}
    if isinstance(value, list | tuple):
        return [plain(found) for found in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
