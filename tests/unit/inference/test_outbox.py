"""What waits for a slow reader, and finishing pictures beside each other."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import pytest

from inference_service.engine import Picture, Preview
from inference_service.events import FinishedImage, Progress
from inference_service.generation import ImageTask
from inference_service.outbox import Outbox, Waiting, finished

PIXELS = np.zeros((1, 1, 3), np.uint8)
Results = AsyncGenerator[Progress | Preview | Picture, Any]


def _task(index: int) -> ImageTask:
    return ImageTask(index, 0, index)


def _image(index: int) -> FinishedImage:
    return FinishedImage(_task(index), 1, 1, digest="d")


async def _finish(picture: Picture) -> FinishedImage:
    return _image(picture.task.index)


async def _taken(outbox: Outbox) -> list[Waiting]:
    taken = []
    while (item := await outbox.take()) is not None:
        taken.append(item)
    return taken


def test_only_the_newest_sketches_wait_and_every_image_does() -> None:
    outbox = Outbox()
    for item in (
        Progress((0, 1), 1, 9),
        Preview(_task(0), 1, PIXELS),
        Preview(_task(1), 1, PIXELS),
        Progress((2,), 1, 9),
        Progress((0, 1), 2, 9),
        Preview(_task(1), 2, PIXELS),
        _image(0),
        _image(2),
    ):
        outbox.put(item)
    outbox.close()
    assert asyncio.run(_taken(outbox)) == [
        Progress((2,), 1, 9),
        Progress((0, 1), 2, 9),
        Preview(_task(1), 2, PIXELS),
        _image(0),
        _image(2),
    ]


def test_pictures_are_finished_beside_each_other_and_sent_as_they_are_done() -> None:
    both_begun = asyncio.Barrier(2)
    first_may_end = asyncio.Event()

    async def results() -> Results:
        yield Picture(_task(0), PIXELS)
        yield Progress((1,), 1, 9)
        yield Picture(_task(1), PIXELS)

    async def finish(picture: Picture) -> FinishedImage:
        await both_begun.wait()
        if picture.task.index == 0:
            await first_may_end.wait()
        return await _finish(picture)

    async def scenario() -> None:
        events = finished(results(), finish)
        assert await anext(events) == Progress((1,), 1, 9)
        assert await anext(events) == _image(1)
        first_may_end.set()
        assert [event async for event in events] == [_image(0)]

    asyncio.run(asyncio.wait_for(scenario(), 10))


class _Broken(Exception):
    pass


@pytest.mark.parametrize("breaks", ["engine", "finish"])
def test_what_fails_frees_the_engine_and_is_raised_after_what_was_finished(breaks: str) -> None:
    first_came, freed = asyncio.Event(), asyncio.Event()

    async def results() -> Results:
        try:
            yield Picture(_task(0), PIXELS)
            await first_came.wait()
            if breaks == "engine":
                raise _Broken
            yield Picture(_task(1), PIXELS)
            await asyncio.Event().wait()
        finally:
            freed.set()

    async def finish(picture: Picture) -> FinishedImage:
        if picture.task.index == 1:
            raise _Broken
        return await _finish(picture)

    async def scenario() -> None:
        events = finished(results(), finish)
        assert await anext(events) == _image(0)
        first_came.set()
        with pytest.raises(_Broken):
            await anext(events)
        assert freed.is_set()

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_closing_frees_the_engine_and_abandons_what_is_being_finished() -> None:
    begun, freed, abandoned = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def results() -> Results:
        try:
            yield Progress((0,), 0, 9)
            yield Picture(_task(0), PIXELS)
            await asyncio.Event().wait()
        finally:
            freed.set()

    async def finish(picture: Picture) -> FinishedImage:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            abandoned.set()
        return await _finish(picture)

    async def scenario() -> None:
        events = finished(results(), finish)
        await anext(events)
        await begun.wait()
        await events.aclose()
        assert freed.is_set()
        assert abandoned.is_set()

    asyncio.run(asyncio.wait_for(scenario(), 10))
