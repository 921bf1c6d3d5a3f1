"""`python -m tests.hostile_decoder`: a decoder whose every function does what a hostile picture may make one do."""

import contextlib
import ctypes
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from service_kit.decoder_child import Function, serve_pictures


def _eat_memory(body: bytes) -> tuple[bytes, bytes]:
    kept = []
    while True:
        kept.append(bytearray(16 * 1024 * 1024))


def _burn(body: bytes) -> tuple[bytes, bytes]:
    while True:
        pass


def _work(body: bytes) -> tuple[bytes, bytes]:
    """Compute for a third of a second."""
    until_s = time.process_time() + 1 / 3
    while time.process_time() < until_s:
        pass
    return str(os.getpid()).encode(), b""


def _hang(body: bytes) -> tuple[bytes, bytes]:
    time.sleep(3600)
    return b"", b""


def _crash(body: bytes) -> tuple[bytes, bytes]:
    ctypes.string_at(0)
    return b"", b""


def _raise(body: bytes) -> tuple[bytes, bytes]:
    raise KeyError("an exception that nobody thought of")


def _run_program() -> None:
    # What is started is ended by its loader, which can open no library.
    _, status = os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    if status:
        raise OSError(status)


def _reach_out(body: bytes) -> tuple[bytes, bytes]:
    """What it managed to open, by name."""
    attempts: Mapping[str, Callable[[], object]] = {
        "file": Path("/etc/hostname").read_bytes,
        "socket": socket.socket,
        "pipe": os.pipe,
        "program": _run_program,
    }
    opened = []
    # Nor does it make room to give one back.
    os.close(2)
    for name, attempt in attempts.items():
        with contextlib.suppress(OSError):
            attempt()
            opened.append(name)
    return " ".join(opened).encode(), b""


_ENVIRONMENT = Path("/proc/self/environ").read_bytes()
_FUNCTIONS: dict[str, Function] = {
    "echo": lambda body: (str(os.getpid()).encode(), body),
    "environment": lambda body: (_ENVIRONMENT, b""),
    "eat_memory": _eat_memory,
    "burn": _burn,
    "work": _work,
    "hang": _hang,
    "crash": _crash,
    "raise": _raise,
    "reach_out": _reach_out,
}

if __name__ == "__main__":
    serve_pictures(_FUNCTIONS, [])
