"""The verb of `personae.aio.Client` that takes thousands of prompts: that of `personae/batching.py`, by tasks."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Unpack

from personae import requests
from personae.aio.connection import Connection
from personae.batch import Batch, Part, PromptChoice
from personae.connection import needed
from personae.generation_options import GenerationOptions
from personae.images import Image
from personae.requests import AdapterChoice

_Over = tuple[Part, BaseException | None]
"""A part that nobody works on any more, and what it failed with."""


class Batching:
    """The part of `personae.aio.Client` that makes images of more prompts than a request may have."""

    project: str
    _inference: Connection | None

    def generate_many(
        self,
        prompts: Iterable[PromptChoice],
        *,
        adapter: AdapterChoice | None = None,
        adapters: Sequence[AdapterChoice] = (),
        seeds: Sequence[int] | None = None,
        concurrency: int = 4,
        **options: Unpack[GenerationOptions],
    ) -> AsyncGenerator[Image, None]:
        """Generate images of any number of prompts; yield each as soon as it is finished, in any order.

        prompts: read as they are needed, so they may come from a file or a generator; each may bring seeds of its own,
        `("a red house", [1, 2])`. `Image.prompt_index` and `Image.index` count over all of them.
        adapter, adapters, options: as for `generate`. seeds: of every prompt that brings none.
        concurrency: requests open at once, each of about 8 images; what one project may have open, the server limits.

        What is interrupted is asked for again, for the missing (prompt, seed) pairs only, and a full server is waited
        for as long as it says, within `Patience.busy_s`. A prompt that is itself at fault costs no other its image: the
        last thing is then an Incomplete, which names it. Any other error ends it at once. Leaving the iterator cancels
        the rest.
        """
        inference = needed(self._inference, "inference")
        chosen = [*([] if adapter is None else [adapter]), *adapters]
        template = requests.generate(self.project, (), adapters=chosen, seeds=None, has_previews=False, options=options)
        return _images(inference, Batch(template, prompts, seeds, concurrency, inference.patience))


async def _images(inference: Connection, batch: Batch) -> AsyncGenerator[Image, None]:
    arrived: asyncio.Queue[Image | _Over] = asyncio.Queue()
    running: dict[Part, asyncio.Task[None]] = {}

    async def ask(part: Part) -> None:
        failure: BaseException | None = None
        try:
            async with aclosing(inference.follow(part)) as images:
                async for image in images:
                    arrived.put_nowait(image)
        except Exception as error:  # whatever it is, somebody waits to hear of it
            failure = error
        arrived.put_nowait((part, failure))

    try:
        while True:
            while len(running) < batch.concurrency and (part := batch.next_part(inference.patience)):
                running[part] = asyncio.create_task(ask(part))
            if not running:
                break
            found = await arrived.get()
            if isinstance(found, Image):
                yield found
                continue
            part, failure = found
            del running[part]
            if failure:
                batch.failed(part, failure)
    finally:
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)
    batch.check_complete()
