"""Keeps sweeping what was deleted, beside the calls, as long as the service runs."""

import asyncio
import contextlib
import logging
import threading
import time

from service_kit.store import ObjectStore, StoreError
from trainer_service.remains import Remains

_logger = logging.getLogger(__name__)

_EVERY_S = 5.0


class Sweeping:
    """Sweeps from `start` to `stop`; several services may do so at the same time."""

    def __init__(self, store: ObjectStore) -> None:
        self._remains = Remains(store)
        self._something_deleted = asyncio.Event()
        self._stopping = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; what an earlier process left is swept first."""
        self._task = asyncio.create_task(self._keep_sweeping())

    async def stop(self) -> None:
        """Stop before the next object; another process, or the next, goes on."""
        self._stopping.set()
        self._something_deleted.set()
        if self._task:
            await self._task

    def poke(self) -> None:
        """Sweep now: something was deleted."""
        self._something_deleted.set()

    async def _keep_sweeping(self) -> None:
        while not self._stopping.is_set():
            self._something_deleted.clear()
            try:
                await asyncio.to_thread(self._sweep)
            except StoreError as error:
                _logger.warning("cannot sweep what was deleted: %s", error)
            except Exception:
                _logger.exception("sweeping what was deleted failed and is tried again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._something_deleted.wait(), _EVERY_S)

    def _sweep(self) -> None:
        for key in self._remains.sweep(time.monotonic()):
            _logger.debug("removed %s", key)
            if self._stopping.is_set():
                return
