"""A warm worker: a child process of this service that keeps its base model loaded and takes one training at a time.

Its one rule: the pipe is the leash. A child whose parent dies sees its input close and hands over; a child that dies is
noticed by its output closing and is replaced.
"""

import asyncio
import contextlib
import json
import logging
import os
import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from service_kit.names import TrainingName
from trainer_service.gpus import VISIBLE_DEVICES
from trainer_service.training_memory import Device

_logger = logging.getLogger(__name__)

# For trainings on a CPU, unless the operator's environment says otherwise. The layers of a model that is trained there
# are too small to share between threads: one thread was as fast as two where nothing else ran, and many times faster
# where something did, since the two spin while they wait for each other. And glibc gives large blocks back to the
# kernel after every step and faults them in again, which it shall not. See docs/measurements.md.
_ON_CPU = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "2",
}


def child_environment(environ: Mapping[str, str], gpu: str | None) -> dict[str, str]:
    """The environment of a child that is to use this GPU, or the CPU."""
    return _ON_CPU | dict(environ) | ({} if gpu is None else {VISIBLE_DEVICES: gpu})


class WarmWorker:
    """One warm child process. `holder` is its name in leases; `device` is what it computes on, once it has said so."""

    def __init__(
        self, process: asyncio.subprocess.Process, holder: str, observe: Callable[[str, Mapping[str, Any]], None]
    ) -> None:
        self.holder = holder
        self._observe = observe
        self._training: TrainingName | None = None
        self._process = process
        self.device: Device | None = None

    @classmethod
    async def start(cls, gpu: str | None, observe: Callable[[str, Mapping[str, Any]], None]) -> "WarmWorker":
        """Start a child that sees one GPU, or none; it takes a while to become ready, and orders wait for it.

        observe: given its name and what it tells of its trainings.
        """
        holder = f"worker-{uuid.uuid4().hex[:12]}"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "trainer_service.worker",
            "--holder",
            holder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=child_environment(os.environ, gpu),
        )
        return cls(process, holder, observe)

    async def run(self, name: TrainingName, etag: str) -> bool:
        """Have a training carried out; False if the child died over it."""
        self._training = name
        try:
            await self._order({"run": str(name), "etag": etag})
            return await self._answer("ended")
        finally:
            self._training = None

    async def wait_until_ready(self) -> bool:
        """Wait until the child has imported everything; False if it died."""
        return await self._answer("ready")

    async def cancel(self, name: TrainingName) -> None:
        """Interrupt a training within one step, if the child has it."""
        if self._training == name:
            await self._order({"cancel": str(name)})

    def kill(self) -> None:
        """End the child at once, whatever it does."""
        # It may have ended just now.
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def stop(self, patience_s: float) -> None:
        """Close the child's input, so that it checkpoints and hands over; kill it when it takes too long."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), patience_s)
        except TimeoutError:
            _logger.error("%s did not hand over in %.0f s and is killed", self.holder, patience_s)
            self.kill()
            await self._process.wait()

    async def _order(self, order: dict[str, str]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            await self._process.stdin.drain()
        except ConnectionError:
            _logger.warning("%s is gone", self.holder)

    async def _answer(self, key: str) -> bool:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            if "observed" in said:
                self._observe(self.holder, said["observed"])
            if "device" in said:
                self.device = Device.model_validate(said["device"])
            if key in said:
                return True
        return False
