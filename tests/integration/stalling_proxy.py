"""A proxy before the object store that, while told to, swallows every request for a picture: its answer never comes.

Its one rule: everything else passes, so that leases are renewed while a stage hangs.
"""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PICTURE = re.compile(rb"GET /\S*/images/\S+ HTTP")


class StallingProxy:
    """Passes bytes on to `host:port`, from an address of its own. `stalls`: whether pictures are held back now."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.stalls = True
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        """Take connections."""
        self._in_thread(self._accept)

    def stop(self) -> None:
        """End every connection and take no more."""
        # The accepting thread comes first, and starts no more after it.
        _end(self._listener)
        self._threads[0].join()
        for connected in self._sockets:
            _end(connected)
        for thread in self._threads:
            thread.join()
        for connected in (self._listener, *self._sockets):
            connected.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                far = socket.create_connection(self._target)
                self._sockets.append(far)
                self._in_thread(self._pass, near, far, True)
                self._in_thread(self._pass, far, near, False)

    def _pass(self, source: socket.socket, sink: socket.socket, to_store: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                # One request at a time is under way on a connection, and each fits into a chunk but for its body.
                if not (to_store and self.stalls and _PICTURE.match(chunk)):
                    sink.sendall(chunk)
        _end(sink)

    def _in_thread(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()


def _end(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


@contextmanager
def stalling_proxy(endpoint: str) -> Iterator[StallingProxy]:
    """A proxy before `http://host:port`, gone when the block is left."""
    proxy = StallingProxy(endpoint.removeprefix("http://"))
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
