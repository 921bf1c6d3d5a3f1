"""The object store as a service gets it at its start: connected, and shown to keep what the services rest on.

Its one rule: no service runs on a store that fails. Each is one of several writers from the first moment (a trainer and
its workers change one record, replicas of the inference service one ledger), so there is no mode for a lone writer.
"""

import asyncio
import contextlib
import logging
import uuid

from service_kit.minio_store import MinioStore, open_store
from service_kit.serving import StartError, connect_store
from service_kit.settings import PREFIX, StoreSettings
from service_kit.store_verification import QUICK, Outcome, verify

_RETRY_S = 0.5

_logger = logging.getLogger(__name__)


async def connect_verified_store(settings: StoreSettings) -> MinioStore:
    """The object store, once it answers and has passed a quick verification.

    Raises StartError as `connect_store` does, when the store fails a check, or when it leaves a check unanswered beyond
    `s3_patience_s`.
    """
    store = await connect_store(settings)
    give_up = asyncio.get_running_loop().time() + settings.s3_patience_s
    while True:
        outcome = await asyncio.to_thread(_first_complaint, store, open_store(settings))
        if outcome is None:
            return store
        if outcome.verdict == "failed":
            raise StartError(
                f"{PREFIX}S3_ENDPOINT={settings.s3_endpoint} fails {outcome.check}: a store that {outcome.promise} is "
                f"needed, and {outcome.seen}; otherwise {outcome.needed_for}. `personae verify-store` tells more; "
                "choose another store (docs/object-stores.md)"
            )
        if asyncio.get_running_loop().time() >= give_up:
            raise StartError(
                f"{PREFIX}S3_ENDPOINT={settings.s3_endpoint} is reachable, but left {outcome.check} unanswered "
                f"({outcome.seen}); see to the object store, or raise {PREFIX}S3_PATIENCE_S"
            )
        _logger.warning("the object store left %s unanswered: %s", outcome.check, outcome.seen)
        await asyncio.sleep(_RETRY_S)


def _first_complaint(here: MinioStore, there: MinioStore) -> Outcome | None:
    with contextlib.closing(verify(here, there, uuid.uuid4().hex, QUICK)) as outcomes:
        return next((outcome for outcome in outcomes if outcome.verdict != "passed"), None)
