"""Whether pictures may be shown: the port of whatever judges that, and how pictures reach it.

Its one rule: without a verdict no picture leaves. Who refuses is `safety_checker.py` or the operator's own code.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_MOST_AT_ONCE = 16


class Checker(Protocol):
    """Judges pictures."""

    def refuses(self, pictures: "Sequence[NDArray[numpy.uint8]]") -> list[bool]:
        """For each picture, pixels_HWC of any size, whether it must not be shown.

        Blocks, on a thread of its own; must leave the pictures as they are. Whatever it raises fails the generations
        whose pictures it was shown.
        """
        ...


class ContentCheck:
    """Shows a checker the pictures of all generations: one call at a time, with all that came during the last one."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="content-check")
        self._waiting: list[tuple[NDArray[numpy.uint8], asyncio.Future[bool]]] = []
        self._working: asyncio.Task[None] | None = None

    async def refuses(self, pixels_HWC: "NDArray[numpy.uint8]") -> bool:
        """Whether the picture must not be shown. Raises what the checker raises."""
        verdict: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels_HWC, verdict))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await verdict

    def close(self) -> None:
        """Wait for the call that is running and stop the thread."""
        self._thread.shutdown(cancel_futures=True)

    async def _work(self) -> None:
        try:
            # A verdict is cancelled where nobody waits for it any more.
            while wanted := [entry for entry in self._waiting if not entry[1].done()]:
                self._waiting = wanted[_MOST_AT_ONCE:]
                await self._judge(wanted[:_MOST_AT_ONCE])
        finally:
            self._waiting, self._working = [], None

    async def _judge(self, group: "list[tuple[NDArray[numpy.uint8], asyncio.Future[bool]]]") -> None:
        pictures = [pixels_HWC for pixels_HWC, _ in group]
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._checker.refuses, pictures)
            answers = [(verdict, bool(refused)) for (_, verdict), refused in zip(group, found, strict=True)]
        except Exception as error:
            for _, verdict in group:
                if not verdict.done():
                    verdict.set_exception(error)
            return
        for verdict, refused in answers:
            if not verdict.done():
                verdict.set_result(refused)
