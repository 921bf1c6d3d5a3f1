"""A TCP proxy in front of an object store that can swallow the answer to a write, as a network that fails does.

Its one rule: what it is not told to cut goes through unchanged.
"""

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

_CHUNK_BYTES = 65536


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, upstream: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.before_write: Callable[[], bool] | None = None


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        with socket.create_connection(self.server.upstream) as upstream:
            request = self.request.recv(_CHUNK_BYTES)
            cut = request.startswith(b"PUT ") and self.server.before_write is not None
            if cut and not (self.server.before_write or bool)():
                return
            upstream.sendall(request)
            threading.Thread(target=_pump, args=(self.request, upstream), daemon=True).start()
            if cut:
                # The answer's first bytes mean that the write has been done.
                upstream.recv(1)
                return
            _pump(upstream, self.request)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while chunk := source.recv(_CHUNK_BYTES):
            sink.sendall(chunk)
    except OSError:
        # The other direction has ended.
        return


class CuttingProxy:
    """`endpoint` is where it listens."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self.endpoint = f"http://127.0.0.1:{server.server_address[1]}"

    @contextmanager
    def cutting(self, before_write: Callable[[], bool]) -> Iterator[None]:
        """Swallow the answers to writes. `before_write` runs first and says whether the write gets through at all."""
        self._server.before_write = before_write
        try:
            yield
        finally:
            self._server.before_write = None


@contextmanager
def cutting_proxy(endpoint: str) -> Iterator[CuttingProxy]:
    """Run a proxy in front of the store at `endpoint`."""
    url = urlsplit(endpoint)
    assert url.hostname
    assert url.port
    with _Server((url.hostname, url.port)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield CuttingProxy(server)
        finally:
            server.shutdown()
            thread.join()
