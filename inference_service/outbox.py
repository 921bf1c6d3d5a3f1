"""What waits to be sent to one caller. Of progress, and of each image's previews, only the newest waits.

Its one rule: who reads slowly loses sketches, never images, and holds up nobody. Used on the event loop only.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from inference_service.engine import Picture, Preview
from inference_service.events import FinishedImage, Progress

Waiting = Progress | Preview | FinishedImage


class Outbox:
    """Filled by whoever makes images, emptied by whoever sends them."""

    def __init__(self) -> None:
        # By what a newer one of the same kind makes stale; in the order of their coming.
        self._waiting: dict[object, Waiting] = {}
        self._news = asyncio.Event()
        self._closed = False

    def put(self, item: Waiting) -> None:
        """Add what is to be sent."""
        key: object
        match item:
            case Progress():
                key = item.indices
            case Preview():
                key = ("preview", item.task.index)
            case FinishedImage():
                key = ("image", item.task.index)
                self._waiting.pop(("preview", item.task.index), None)
        self._waiting.pop(key, None)
        self._waiting[key] = item
        self._news.set()

    def close(self) -> None:
        """Nothing more will come."""
        self._closed = True
        self._news.set()

    async def take(self) -> Waiting | None:
        """What has waited longest; None once all was taken and nothing more will come."""
        while not self._waiting and not self._closed:
            self._news.clear()
            await self._news.wait()
        return self._waiting.pop(next(iter(self._waiting))) if self._waiting else None


async def finished(
    results: AsyncGenerator[Progress | Preview | Picture, Any],
    finish: Callable[[Picture], Awaitable[FinishedImage]],
) -> AsyncGenerator[Waiting, Any]:
    """What an engine yields, with its pictures finished side by side, while it goes on.

    An error of the engine or of `finish` ends the rest and is raised, after what was finished before it. Closing this
    closes `results`.
    """
    outbox = Outbox()

    async def finish_one(picture: Picture) -> None:
        outbox.put(await finish(picture))

    async def read() -> None:
        async with aclosing(results), asyncio.TaskGroup() as finishing:
            async for result in results:
                if isinstance(result, Picture):
                    finishing.create_task(finish_one(result))
                else:
                    outbox.put(result)

    reading = asyncio.create_task(read())
    reading.add_done_callback(lambda _: outbox.close())
    try:
        while (item := await outbox.take()) is not None:
            yield item
        await reading
    except BaseExceptionGroup as failures:
        # They end one call, so the first says it all.
        raise failures.exceptions[0] from failures
    finally:
        reading.cancel()
        # Its error, if any, was raised above, or nobody is left to be told.
        await asyncio.gather(reading, return_exceptions=True)
