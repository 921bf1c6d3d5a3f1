"""The asyncio client, driven like the synchronous one, so that every test of the client's behaviour is run with both.

Each call, and each step of an iteration, runs the event loop until it is done.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import personae

_END = object()


@contextmanager
def driven_client(*addresses: str, **options: Any) -> Iterator[Any]:
    """A `personae.aio.Client` in a loop of its own that takes synchronous calls."""
    with asyncio.Runner() as runner:
        # Made outside of the loop on purpose: the first call is what binds it.
        client = personae.aio.Client(*addresses, **options)
        try:
            yield _Driven(runner, client)
        finally:
            runner.run(client.close())


class _Driven:
    def __init__(self, runner: asyncio.Runner, target: Any) -> None:
        self._runner, self._target = runner, target

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found
        return lambda *arguments, **options: self._given(found(*arguments, **options))

    def _given(self, value: Any) -> Any:
        if inspect.iscoroutine(value):
            value = self._runner.run(value)
        if inspect.isasyncgen(value):
            return self._iterated(value)
        return _Driven(self._runner, value) if isinstance(value, personae.aio.Training) else value

    def _iterated(self, items: AsyncGenerator[Any, None]) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(items, _END)

        try:
            while (item := self._runner.run(following())) is not _END:
                yield self._given(item)
        finally:
            self._runner.run(items.aclose())
