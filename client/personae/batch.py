"""Thousands of prompts as requests of a bounded size: which to ask next, whose place an image has, what failed.

Both clients drive it: they ask several parts at a time, hand on what comes, and tell it which part failed. Nothing is
sent here.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from personae.errors import Busy, Incomplete, InvalidRequest, Missing, PreconditionFailed, Unavailable, Violation
from personae.generation import Generation
from personae.images import Image
from personae.patience import Outage, Patience
from personae.v1 import inference_pb2

PromptChoice = str | tuple[str, Sequence[int]]
"""A prompt, or a prompt and its own seeds."""

# A server batches the images of all requests, so that a large request gains nothing, and costs more when it is refused.
_PART_IMAGES = 8


@dataclass(frozen=True)
class Wanted:
    """Images of one prompt. `indices`: their positions among all of the batch. `seeds`: none to have them drawn."""

    prompt_index: int
    prompt: str
    indices: tuple[int, ...]
    seeds: tuple[int, ...]


class Part(Generation):
    """One request of a batch. Its images carry their places in the whole batch."""

    def __init__(
        self, request: inference_pb2.GenerateRequest, wanted: Sequence[Wanted], patience: Patience, busy: Outage
    ) -> None:
        super().__init__(request, None, None, patience)
        self.wanted = wanted
        self._busy = busy
        self._slots = [(found, index) for found in wanted for index in found.indices]

    def take(self, message: inference_pb2.GenerateResponse) -> Image | None:
        """The image, where the message is a missing one."""
        image = super().take(message)
        if image is None:
            return None
        self._busy.over()
        found, index = self._slots[image.index]
        return replace(image, index=index, prompt_index=found.prompt_index)

    def pause_s(self, cut: Unavailable | Busy, now_s: float) -> float:
        """A server whose queue is full is asked again; one that says nothing of how long is full of something else."""
        if isinstance(cut, Busy) and cut.retry_after_s is not None:
            return self._busy.pause_s(cut, now_s)
        return super().pause_s(cut, now_s)

    def rest(self) -> list[Wanted]:
        """What has not come: by single images where their seeds are known, else by prompts."""
        if self.missing is None:
            return list(self.wanted)
        slots = [(*self._slots[index], seed) for index, seed in self.missing.items()]
        return [Wanted(found.prompt_index, found.prompt, (index,), (seed,)) for found, index, seed in slots]


class Batch:
    """The images of many prompts. `template`: the request without prompts; `seeds`: of the prompts that bring none.

    Raises InvalidRequest.
    """

    def __init__(
        self,
        template: inference_pb2.GenerateRequest,
        prompts: Iterable[PromptChoice],
        seeds: Sequence[int] | None,
        concurrency: int,
        patience: Patience,
    ) -> None:
        violations = []
        if isinstance(prompts, str):
            # Python would take a text for its letters.
            violations.append(Violation("prompts", f"found {prompts!r}; allowed are several prompts"))
        if concurrency < 1:
            violations.append(Violation("concurrency", f"found {concurrency}; allowed is 1 or more"))
        if violations:
            raise InvalidRequest(violations)
        self.concurrency = concurrency
        """Parts to be asked at a time."""
        self._template = template
        self._unread = self._read(prompts, tuple(seeds or ()))
        self._ahead: Wanted | None = None
        self._again: deque[Wanted] = deque()
        self._missing: list[Missing] = []
        # Shared, because a server that takes any part of it is not stuck.
        self._busy = Outage(patience.busy_s, patience.first_pause_s)

    def next_part(self, patience: Patience) -> Part | None:
        """What to ask for next; None when all has been asked for. Reads no more prompts than it needs."""
        wanted = [self._again.popleft()] if self._again else self._read_part()
        if not wanted:
            return None
        request = inference_pb2.GenerateRequest()
        request.CopyFrom(self._template)
        for found in wanted:
            try:
                request.prompts.add(text=found.prompt, seeds=found.seeds)
            except ValueError as error:
                raise InvalidRequest([Violation(f"prompts[{found.prompt_index}]", str(error))]) from None
        return Part(request, wanted, patience, self._busy)

    def failed(self, part: Part, error: BaseException) -> None:
        """Note that a part will not be finished. Raises `error` unless single prompts or images of it are to blame."""
        if not (isinstance(error, InvalidRequest | PreconditionFailed) and _blames_its_images(error)):
            raise error
        rest = part.rest()
        if len(rest) > 1:
            # Only those to blame fail, then.
            self._again.extend(rest)
        elif isinstance(error, InvalidRequest) and not all(_of_prompts(found) for found in error.violations):
            raise error
        else:
            self._missing += [Missing(found.prompt_index, found.prompt, found.seeds, error) for found in rest]

    def check_complete(self) -> None:
        """Raise Incomplete where something failed for reasons of its own."""
        if self._missing:
            raise Incomplete(self._missing)

    def _read_part(self) -> list[Wanted]:
        """As many prompts as have few enough images; at least one."""
        wanted: list[Wanted] = []
        images = 0
        while (found := self._ahead or next(self._unread, None)) is not None:
            self._ahead, images = found, images + len(found.indices)
            if wanted and images > _PART_IMAGES:
                break
            wanted.append(found)
            self._ahead = None
        return wanted

    def _read(self, prompts: Iterable[PromptChoice], seeds_of_all: tuple[int, ...]) -> Iterator[Wanted]:
        first = 0
        for prompt_index, choice in enumerate(prompts):
            prompt, seeds = (choice, seeds_of_all) if isinstance(choice, str) else (choice[0], tuple(choice[1]))
            count = len(seeds) or max(1, self._template.images_per_prompt)
            # Seeds that the server is to draw cannot be told apart yet, so those images stay together.
            size = _PART_IMAGES if seeds else count
            for start in range(0, count, size):
                indices = range(first + start, first + min(start + size, count))
                yield Wanted(prompt_index, prompt, tuple(indices), seeds[start : start + size])
            first += count


def _blames_its_images(error: InvalidRequest | PreconditionFailed) -> bool:
    if isinstance(error, InvalidRequest):
        return any(_of_prompts(violation) for violation in error.violations)
    return error.reason == "NOT_FINITE"


def _of_prompts(violation: Violation) -> bool:
    return violation.field.startswith("prompts")
