"""The inside of a child process that decodes pictures: limits first, then one picture after the other until the pipe
closes.

Its one rule: once it is limited it can open nothing, whatever a picture makes of it: no file, no socket, no pipe.
"""

import json
import math
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import BinaryIO

from service_kit.decoder_frames import MAX_HEAD_BYTES, BadFrame, Frame, Kind, read_frame, write_frame

# More than any service takes in.
_MAX_FILE_BYTES = 256 * 1024 * 1024

Function = Callable[[bytes], tuple[bytes, bytes]]
"""Of a file: what is said of it, as JSON, and the picture, in whatever form the two sides agreed on."""


@dataclass(frozen=True)
class DecodingLimits:
    """What one child may use. `memory_bytes` is beyond what it has when it is ready; `cpu_s` is for one picture."""

    memory_bytes: int
    cpu_s: int

    def to_argument(self) -> str:
        """As the child's one command line argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_argument(cls, text: str) -> "DecodingLimits":
        """See `to_argument`."""
        return cls(**json.loads(text))


def serve_pictures(functions: Mapping[str, Function], rehearsal: Iterable[bytes]) -> None:
    """Apply `functions`, by name, to the files that come in, within the limits of the command line.

    Returns when the pipe closes. rehearsal: files to apply each function to first, so that all that they need is
    imported: nothing can be later.
    """
    limits = DecodingLimits.from_argument(sys.argv[1])
    for body in rehearsal:
        for function in functions.values():
            function(body)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What a library prints goes nowhere; the pipes are for frames.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    _limit(limits)
    try:
        write_frame(answers, Frame(Kind.READY))
        while True:
            write_frame(answers, _answer(functions, requests, limits))
    except (BadFrame, OSError):
        # The service is gone.
        return


def _limit(limits: DecodingLimits) -> None:
    with open("/proc/self/statm") as file:
        address_space_bytes = int(file.read().split()[0]) * resource.getpagesize() + limits.memory_bytes
    for kind, most in (
        (resource.RLIMIT_AS, address_space_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        # Those that are open stay; there will never be another, be it a file or a socket.
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def _answer(functions: Mapping[str, Function], requests: BinaryIO, limits: DecodingLimits) -> Frame:
    request = read_frame(requests, _MAX_FILE_BYTES)
    try:
        # The kernel counts from the process's start and ends it by SIGXCPU.
        until_s = math.ceil(time.process_time()) + limits.cpu_s
        resource.setrlimit(resource.RLIMIT_CPU, (until_s, resource.RLIM_INFINITY))
        return Frame(Kind.ANSWER, *functions[request.head.decode()](request.body))
    except MemoryError:
        return Frame(Kind.NO_MEMORY)
    except Exception:
        return Frame(Kind.DEFECT, traceback.format_exc().encode()[-MAX_HEAD_BYTES:])
