"""Decoding in child processes: files from outside are handed to a child that can do little, and never decoded here.

Its one rule: whatever a picture does to the child that decodes it, only this picture is refused. A child that died is
replaced, every wait is bounded, and nothing that a child sends is trusted: its lengths are judged here, and what they
hold by whoever called.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, Field

from service_kit.decoder_child import DecodingLimits
from service_kit.decoder_frames import BadFrame, Frame, Kind, read_frame, write_frame
from service_kit.errors import ServiceUnavailable, TryLater
from service_kit.picture_file import Flaw, PictureRefused

# Imports take half a second, on a busy machine many times that.
_START_WITHIN_S = 120.0
# A picture's time by the clock, in terms of its processor time: others compute here too.
_CLOCK_TO_CPU = 6
_WAIT_FOR_A_CHILD_S = 120.0
_RETRY_AFTER_S = 5.0
_logger = logging.getLogger(__name__)


class DecodingSettings(BaseModel):
    """What decoding pictures from outside may cost."""

    model_config = ConfigDict(frozen=True)

    decoder_children: int = Field(default_factory=lambda: min(4, os.cpu_count() or 1), ge=1, le=64)
    """Child processes that decode pictures from outside; others wait. Each is started when it is first needed and has
    some 60 MB. Default: one for each processor, at most 4."""
    decoder_bytes: int = Field(default=2 * 1024**3, ge=64 * 1024**2)
    """Memory that one of them may take for a picture, in bytes; a picture that needs more is refused. The default is
    enough for the largest that is allowed, in any mode; hostile ones can take it in every child at once."""
    decoder_cpu_s: int = Field(default=30, ge=1, le=600)
    """Processor time that a picture may take, in seconds; one that takes more is refused."""

    @property
    def limits(self) -> DecodingLimits:
        """Of one child."""
        return DecodingLimits(self.decoder_bytes, self.decoder_cpu_s)


class _Died(Exception):
    """The child is gone. `limit` says which one it met, if any."""

    def __init__(self, how: str, limit: str = "") -> None:
        super().__init__(how)
        self.limit = limit


class DecoderPool:
    """Up to `children` processes of `python -m module`, which calls `serve_pictures`. For use by several threads."""

    def __init__(self, module: str, limits: DecodingLimits, children: int) -> None:
        self._module = module
        self._limits = limits
        self._slots = threading.BoundedSemaphore(children)
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()
        self._is_closed = False

    def ask(self, function: str, body: bytes, max_answer_bytes: int) -> tuple[bytes, bytes]:
        """What the child's function says of a file, and the picture that it gives: at most so many bytes.

        Raises PictureRefused for a file that does not decode within the limits, TryLater where every child has been
        busy for long, ServiceUnavailable where none can be started or the service ends.
        """
        if not self._slots.acquire(timeout=_WAIT_FOR_A_CHILD_S):
            raise TryLater("DECODERS_BUSY", "all pictures that are decoded at the moment take long", _RETRY_AFTER_S)
        try:
            return self._asked(Frame(Kind.REQUEST, function.encode(), body), max_answer_bytes)
        finally:
            self._slots.release()

    def warm(self) -> None:
        """Start the first child, so that the first picture need not wait. Raises ServiceUnavailable."""
        with self._slots:
            self._give_back(self._child())

    def close(self) -> None:
        """End every child, whatever it does."""
        with self._lock:
            self._is_closed = True
            children = list(self._all)
            self._idle.clear()
            self._all.clear()
        for child in children:
            child.end()

    def _asked(self, request: Frame, max_answer_bytes: int) -> tuple[bytes, bytes]:
        # A child that somebody else killed says nothing about its picture; one that dies twice over it does.
        answer = self._tried(request, max_answer_bytes) or self._tried(request, max_answer_bytes)
        if answer is None:
            raise PictureRefused(Flaw.TRUNCATED, "cannot be decoded: the decoder breaks down over it")
        if answer.kind is Kind.NO_MEMORY:
            allowed = f"allowed are: {self._limits.memory_bytes:,}"
            raise PictureRefused(Flaw.TRUNCATED, f"decoding it takes more bytes of memory than {allowed}")
        if answer.kind is Kind.DEFECT:
            _logger.error("decoding raised what it should not:\n%s", answer.head.decode(errors="replace"))
            raise PictureRefused(Flaw.TRUNCATED, "cannot be decoded")
        return answer.head, answer.body

    def _tried(self, request: Frame, max_answer_bytes: int) -> Frame | None:
        """A child's answer; None where it died, but met no limit."""
        child = self._child()
        try:
            answer = child.ask(request, max_answer_bytes, self._limits)
        except _Died as died:
            self._discard(child)
            if self._is_closed:
                raise ServiceUnavailable("DRAINING", "the service ends", _RETRY_AFTER_S) from died
            _logger.warning("a child that decoded a picture of %d bytes: %s", len(request.body), died)
            if died.limit:
                raise PictureRefused(Flaw.TRUNCATED, died.limit) from died
            return None
        self._give_back(child)
        return answer

    def _child(self) -> "_Child":
        while True:
            with self._lock:
                if self._is_closed:
                    raise ServiceUnavailable("DRAINING", "the service ends", _RETRY_AFTER_S)
                child = self._idle.pop() if self._idle else None
            if child is None:
                return self._started()
            if child.lives:
                return child
            _logger.warning("an idle decoder died and is replaced")
            self._discard(child)

    def _started(self) -> "_Child":
        try:
            child = _Child(self._module, self._limits)
        except OSError as error:
            _logger.error("no decoder can be started: %s", error)
            raise ServiceUnavailable("DECODER_UNAVAILABLE", "no decoder can be started", _RETRY_AFTER_S) from error
        with self._lock:
            self._all.add(child)
            is_closed = self._is_closed
        if is_closed:
            self._discard(child)
            raise ServiceUnavailable("DRAINING", "the service ends", _RETRY_AFTER_S)
        try:
            child.wait_until_ready()
        except _Died as died:
            self._discard(child)
            _logger.error("no decoder can be started: %s", died)
            raise ServiceUnavailable("DECODER_UNAVAILABLE", "no decoder can be started", _RETRY_AFTER_S) from died
        return child

    def _give_back(self, child: "_Child") -> None:
        with self._lock:
            # Closing has ended it already.
            if not self._is_closed:
                self._idle.append(child)

    def _discard(self, child: "_Child") -> None:
        with self._lock:
            self._all.discard(child)
        child.end()


class _Child:
    """One process, used by one thread at a time; `end` may be called by any."""

    def __init__(self, module: str, limits: DecodingLimits) -> None:
        self._ending = threading.Lock()
        self._process = subprocess.Popen(
            # -P: nothing is imported from the folder that the service was started in, unless the service does so too.
            [sys.executable, "-P", "-m", module, limits.to_argument()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
            # Ctrl-C is for the service.
            start_new_session=True,
        )
        self._requests: BinaryIO = self._process.stdin  # type: ignore[assignment]
        self._answers: BinaryIO = self._process.stdout  # type: ignore[assignment]

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        """Wait until it has imported everything. Raises _Died."""
        self._within(_START_WITHIN_S, lambda: read_frame(self._answers, 0))

    def ask(self, request: Frame, max_answer_bytes: int, limits: DecodingLimits) -> Frame:
        """Its answer. Raises _Died."""

        def exchange() -> Frame:
            write_frame(self._requests, request)
            return read_frame(self._answers, max_answer_bytes)

        try:
            answer = self._within(_CLOCK_TO_CPU * limits.cpu_s, exchange)
        except _Died as died:
            if self._process.wait() == -signal.SIGXCPU:
                found = f"decoding it takes more processor time than allowed are: {limits.cpu_s} s"
                raise _Died("it took too much processor time", found) from died
            raise
        if answer.kind not in (Kind.ANSWER, Kind.NO_MEMORY, Kind.DEFECT):
            raise _Died(f"it answered with {answer.kind.name}")
        return answer

    def end(self) -> None:
        """Kill it and take note of its end."""
        with self._ending:
            self._process.kill()
            self._process.wait()
        for file in (self._requests, self._answers):
            try:
                file.close()
            except OSError:
                # What was not sent never will be.
                continue

    def _within(self, patience_s: float, exchange: Callable[[], Frame]) -> Frame:
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(patience_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            found = exchange()
        except (BadFrame, OSError, ValueError) as error:
            # A ValueError is that of a file which `end` has closed.
            self._process.kill()
            how = f"{error} (exit status {self._process.wait()})"
            raise _Died(how, f"decoding it takes longer than {patience_s:.0f} s" if late.is_set() else "") from error
        finally:
            timer.cancel()
            timer.join()
        if late.is_set():
            raise _Died("it answered too late", f"decoding it takes longer than {patience_s:.0f} s")
        return found


def _environment() -> dict[str, str]:
    """Where to import from, and nothing else of ours: what the service was told is none of a decoder's business."""
    return {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONDONTWRITEBYTECODE": "1",
        # Threads and arenas of their own would only take up address space.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
    }
