"""How pictures reach a checker: together, off the loop, and never past it."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from inference_service.content_check import ContentCheck
from tests.unit.inference.fake_serving import PATIENCE_S, FakeServing, ask, serve


class DarkChecker:
    """Refuses pictures that begin with a dark pixel; remembers how many it was shown at once, and waits for `gate`."""

    def __init__(self) -> None:
        self.shown: list[int] = []
        self.begun, self.gate = threading.Event(), threading.Event()
        self.failure: Exception | None = None
        self.verdicts_short = 0

    def refuses(self, pictures: Sequence[NDArray[np.uint8]]) -> list[bool]:
        self.shown.append(len(pictures))
        self.begun.set()
        assert self.gate.wait(PATIENCE_S)
        if self.failure:
            raise self.failure
        return [bool(picture[0, 0, 0] < 100) for picture in pictures][self.verdicts_short :]


def _grey(level: int) -> NDArray[np.uint8]:
    return np.full((2, 2, 3), level, np.uint8)


async def _until_begun(checker: DarkChecker) -> None:
    assert await asyncio.to_thread(checker.begun.wait, PATIENCE_S)


def test_pictures_that_come_during_a_call_share_the_next_one() -> None:
    checker = DarkChecker()
    check = ContentCheck(checker)

    async def scenario() -> None:
        first = asyncio.create_task(check.refuses(_grey(0)))
        await _until_begun(checker)
        others = [asyncio.create_task(check.refuses(_grey(level))) for level in [200, 50] * 10]
        left = asyncio.create_task(check.refuses(_grey(0)))
        await asyncio.sleep(0)
        left.cancel()
        checker.gate.set()
        assert await first
        assert await asyncio.gather(*others) == [False, True] * 10
        # Sixteen at once, then what was left; nobody waited for the last picture.
        assert checker.shown == [1, 16, 4]
        assert not await check.refuses(_grey(255))

    asyncio.run(scenario())
    check.close()


@pytest.mark.parametrize("failure", [RuntimeError("out of memory"), None])
def test_without_a_verdict_every_picture_of_the_call_fails(failure: Exception | None) -> None:
    checker = DarkChecker()
    checker.gate.set()
    # A checker that forgets a picture has not judged any: whose verdict is whose?
    checker.failure, checker.verdicts_short = failure, 1
    check = ContentCheck(checker)

    async def scenario() -> None:
        answers = await asyncio.gather(*(check.refuses(_grey(200)) for _ in range(3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [RuntimeError if failure else ValueError] * 3
        checker.failure, checker.verdicts_short = None, 0
        assert await check.refuses(_grey(0))

    asyncio.run(scenario())
    check.close()


def test_a_checker_that_fails_lets_no_picture_out_and_serving_goes_on(tmp_path: Path) -> None:
    checker = DarkChecker()
    checker.gate.set()

    async def scenario(serving: FakeServing) -> None:
        checker.failure = RuntimeError("secret words")
        call = serving.stub.Generate(ask(*range(8)), timeout=PATIENCE_S)
        seen: list[str | None] = []

        async def read() -> None:
            async for message in call:
                seen.append(message.WhichOneof("kind"))

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read()
        assert "accepted" in seen
        assert "image" not in seen
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert "secret" not in (caught.value.details() or "")
        assert list(serving.store.keys("")) == []
        assert serving.studio.admission.cost_waiting == 0
        checker.failure = None
        messages = await serving.generate(ask(*range(8)))
        refused = {m.image.seed for m in messages if m.HasField("image") and not m.image.digest}
        assert 0 < len(refused) < 8
        assert messages[-1].done.image_count == 8

    serve(tmp_path, scenario, checker=checker)


def test_a_slow_checker_holds_up_no_denoising(tmp_path: Path) -> None:
    checker = DarkChecker()

    async def scenario(serving: FakeServing) -> None:
        call = serving.stub.Generate(ask(1, 2), timeout=PATIENCE_S)
        await _until_begun(checker)
        # The first picture waits for its verdict; all the rest was computed meanwhile.
        await serving.engine.freed.wait()
        assert len(serving.engine.computed) == 2
        checker.gate.set()
        kinds = [message.WhichOneof("kind") async for message in call]
        assert kinds.count("image") == 2

    serve(tmp_path, scenario, checker=checker)
