"""A stream of results that ends when an adapter is deleted."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from inference_service.deletion import until_deleted
from service_kit.errors import ResourceMissing
from service_kit.names import AdapterVersionName

NAMES = [AdapterVersionName("default", "hero", number) for number in (1, 2)]
PATIENCE_S = 30.0


class Results:
    """Numbers up to `count`; before each it waits for `gate`."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.gate = asyncio.Event()
        self.gate.set()
        self.closed = False

    async def __call__(self) -> AsyncGenerator[int, Any]:
        try:
            for number in range(self._count):
                await self.gate.wait()
                yield number
        finally:
            self.closed = True


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_results_come_through_and_are_closed() -> None:
    async def scenario() -> None:
        results = Results(3)
        assert [number async for number in until_deleted(results(), NAMES, lambda _: False)] == [0, 1, 2]
        assert results.closed

    run(scenario)


def test_leaving_closes_the_results_while_they_are_waited_for() -> None:
    async def scenario() -> None:
        results = Results(3)
        following = until_deleted(results(), [], lambda _: False)
        async with aclosing(following):
            assert await anext(following) == 0
            results.gate.clear()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(following), 0.05)
        assert results.closed

    run(scenario)


def test_a_deletion_ends_them_and_is_named() -> None:
    async def scenario() -> None:
        results, deleted = Results(3), set()
        following = until_deleted(results(), NAMES, deleted.__contains__)
        assert await anext(following) == 0
        results.gate.clear()
        deleted.add(NAMES[1])
        with pytest.raises(ResourceMissing, match="hero/versions/2"):
            await anext(following)
        assert results.closed

    run(scenario)


def test_an_error_of_the_results_is_theirs() -> None:
    async def failing() -> AsyncGenerator[int, Any]:
        yield 0
        raise ValueError("no more")

    async def scenario() -> None:
        following = until_deleted(failing(), NAMES, lambda _: False)
        assert await anext(following) == 0
        with pytest.raises(ValueError, match="no more"):
            await anext(following)

    run(scenario)
