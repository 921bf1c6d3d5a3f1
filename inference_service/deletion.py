"""An adapter that is deleted while its request waits or runs: that request ends, the others go on.

Its one rule: nothing waits for the store here; what others have learned of it is looked at once a second.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, NoReturn, TypeVar

from service_kit.errors import ResourceMissing
from service_kit.names import AdapterVersionName

T = TypeVar("T")

_LOOK_EVERY_S = 1.0


async def until_deleted(
    results: AsyncGenerator[T, Any],
    names: Sequence[AdapterVersionName],
    is_deleted: Callable[[AdapterVersionName], bool],
) -> AsyncGenerator[T, Any]:
    """Yield `results`, and close them when left. Raises ResourceMissing when one of the adapters is deleted."""
    watching = asyncio.create_task(_watch(names, is_deleted))
    following: asyncio.Future[T] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(results))
            await asyncio.wait({following, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            try:
                result = await following
            except StopAsyncIteration:
                return
            yield result
    finally:
        watching.cancel()
        if following is not None:
            following.cancel()
        await asyncio.gather(watching, *([following] if following else []), return_exceptions=True)
        await results.aclose()


async def _watch(names: Sequence[AdapterVersionName], is_deleted: Callable[[AdapterVersionName], bool]) -> NoReturn:
    while True:
        for name in names:
            if is_deleted(name):
                raise ResourceMissing("Adapter", str(name), "it was deleted meanwhile")
        await asyncio.sleep(_LOOK_EVERY_S)
