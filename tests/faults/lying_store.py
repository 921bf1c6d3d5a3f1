"""A proxy before the object store that refuses, stalls or cuts short what it is told to.

Its one rule: what no rule speaks of passes unchanged, signatures included.
"""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Lie = Literal["", "refuse", "forbid", "cut short", "flip", "stall"]
"""Nothing; 503; 403; half of the body, then the end; a byte of the body changed; no answer until the next rule."""
Rule = Callable[[str, str], Lie]
"""What to do with a request, by its method and path."""

_TIMEOUT_S = 30.0
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length"}
_DENIED = b"<Error><Code>AccessDenied</Code><Message>not for you</Message></Error>"


def truthful(method: str, path: str) -> Lie:
    """Everything passes."""
    return ""


class LyingStore:
    """`endpoint` leads to the store through the rule. `asked`: method and path of every request."""

    def __init__(self, target: str) -> None:
        self.asked: list[tuple[str, str]] = []
        self.lied = threading.Event()
        self._rule: Rule = truthful
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self, target))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def lies(self, rule: Rule) -> Iterator[None]:
        """Follow a rule until the block is left."""
        self._rule = rule
        self._released.clear()
        self.lied.clear()
        try:
            yield
        finally:
            self._rule = truthful
            self._released.set()

    def lie_about(self, method: str, path: str) -> Lie:
        """What to do with a request, noted and waited for where it stalls."""
        self.asked.append((method, path))
        lie = self._rule(method, path)
        if lie:
            self.lied.set()
        if lie == "stall":
            self._released.wait()
        return lie

    def serve(self) -> None:
        """Serve until shut down."""
        self._server.serve_forever(poll_interval=0.1)

    def stop(self) -> None:
        """Take no more; what stalls is let go."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()


def _handler_for(lying: LyingStore, target: str) -> type[BaseHTTPRequestHandler]:
    address = urlsplit(target).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            lie = lying.lie_about(self.command, self.path)
            if lie in ("refuse", "forbid"):
                self._answer(503 if lie == "refuse" else 403, {"Content-Type": "application/xml"}, _DENIED)
                return
            store = http.client.HTTPConnection(address, timeout=_TIMEOUT_S)
            try:
                store.request(self.command, self.path, body=body, headers=dict(self.headers))
                answer = store.getresponse()
                content = answer.read()
            finally:
                store.close()
            if lie == "flip":
                content = bytes([content[0] ^ 1]) + content[1:]
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            size = answer.headers["Content-Length"] if self.command == "HEAD" else None
            self._answer(answer.status, headers, content, size, cut_short=lie == "cut short")

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

        def _answer(
            self, status: int, headers: dict[str, str], content: bytes, size: str | None = None, cut_short: bool = False
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", size or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut_short else content)
            self.close_connection = cut_short

        def log_message(self, format: str, *args: object) -> None:
            """The store has a log of its own."""

    return Handler


@contextmanager
def lying_store(target: str) -> Iterator[LyingStore]:
    """A proxy in threads, gone when the block is left."""
    lying = LyingStore(target)
    thread = threading.Thread(target=lying.serve)
    thread.start()
    try:
        yield lying
    finally:
        lying.stop()
        thread.join()
