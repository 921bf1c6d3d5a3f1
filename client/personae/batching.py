"""The verb of a Client that takes thousands of prompts: several requests at a time, a thread for each."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Unpack

from personae import requests
from personae.batch import Batch, Part, PromptChoice
from personae.connection import Connection, Stop, needed
from personae.generation_options import GenerationOptions
from personae.images import Image
from personae.requests import AdapterChoice

_Over = tuple[Part, BaseException | None]
"""A part that nobody works on any more, and what it failed with."""


class Batching:
    """The part of `personae.Client` that makes images of more prompts than a request may have."""

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
    ) -> Iterator[Image]:
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


def _images(inference: Connection, batch: Batch) -> Iterator[Image]:
    arrived: SimpleQueue[Image | _Over] = SimpleQueue()
    running: dict[Part, tuple[Stop, Thread]] = {}

    def ask(part: Part, stop: Stop) -> None:
        failure: BaseException | None = None
        try:
            for image in inference.follow(part, stop):
                arrived.put(image)
        except BaseException as error:  # whatever it is, somebody waits to hear of it
            failure = error
        arrived.put((part, failure))

    try:
        while True:
            while len(running) < batch.concurrency and (part := batch.next_part(inference.patience)):
                stop = Stop()
                # A daemon, so that a program which ends in the midst of it ends.
                running[part] = stop, Thread(target=ask, args=(part, stop), name="personae", daemon=True)
                running[part][1].start()
            if not running:
                break
            found = arrived.get()
            if isinstance(found, Image):
                yield found
                continue
            part, failure = found
            del running[part]
            if failure:
                batch.failed(part, failure)
    finally:
        # Of a program that ends, the threads have stopped wherever they were, and never let go of what they hold.
        if not sys.is_finalizing():
            for stop, _ in running.values():
                stop.set()
            for _, thread in running.values():
                thread.join()
    batch.check_complete()
