"""Idempotent ids: what a mutation creates is named after its `request_id`, so a repeat meets its own work. Pure."""

import hashlib
import uuid

from service_kit.errors import Violations


def check_request_id(request_id: str, violations: Violations, field: str = "request_id") -> None:
    """Note a `request_id` that is given but is no UUID."""
    if request_id:
        try:
            uuid.UUID(request_id)
        except ValueError:
            violations.add(field, f"found {request_id[:80]!r}; allowed is a UUID, or nothing")


def derived_id(kind: str, project: str, request_id: str) -> str:
    """An id that equal requests share; unpredictable where no `request_id` was given."""
    nonce = request_id.lower() or uuid.uuid4().hex
    return f"{kind}-{hashlib.sha256(f'{kind}/{project}/{nonce}'.encode()).hexdigest()[:20]}"
