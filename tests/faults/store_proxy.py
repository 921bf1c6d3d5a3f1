"""An S3 proxy between our processes and a real store that does to chosen requests whatever can happen to them.

Its one rule: a named failpoint is a request (method, key, sender, the n-th of its kind); nothing in the product knows
of it. All else passes unchanged, the Host header too, which signatures cover.
"""

import contextlib
import http.client
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from tests.faults.requester import is_worker, process_of

_UPSTREAM_TIMEOUT_S = 60.0
_POLL_S = 0.02
_CONDITIONS = {"if-match", "if-none-match"}
_OF_A_HOP = {"transfer-encoding", "connection", "keep-alive"}


@dataclass(frozen=True)
class Answer:
    """What the store said to a request."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Exchange:
    """A request that came, and what can be made of it. `key` is the object's, without the bucket."""

    def __init__(self, handler: "_Handler", body: bytes) -> None:
        self._handler = handler
        self.method = handler.command
        url = urlsplit(handler.path)
        self.key = unquote(url.path).lstrip("/").partition("/")[2]
        self.body = body
        self.proxy = handler.server.proxy

    @property
    def requester(self) -> int:
        """Process id of the sender. Raises LookupError where it has gone."""
        return process_of(self._handler.client_address[1], self._handler.server.server_address[1])

    def forward(self) -> Answer:
        """Have the store do it. Raises OSError where the store is away."""
        upstream = self._sent(self.body)
        try:
            response = upstream.getresponse()
            headers = tuple(pair for pair in response.getheaders() if pair[0].lower() not in _OF_A_HOP)
            return Answer(response.status, headers, response.read())
        finally:
            upstream.close()

    def forward_half(self) -> None:
        """Have the store see half of the body and then the end of the connection."""
        self._sent(self.body[: len(self.body) // 2]).close()

    def forward_head(self) -> None:
        """Have the store see what comes before the body, and then the end of the connection."""
        self._sent(b"").close()

    def reply(self, answer: Answer) -> None:
        """Pass an answer on."""
        self.begin_reply(answer)
        self.write(answer.body)

    def begin_reply(self, answer: Answer) -> None:
        """Pass on what comes before the body."""
        self._handler.send_response_only(answer.status)
        for name, value in answer.headers:
            self._handler.send_header(name, value)
        has_length = any(name.lower() == "content-length" for name, _ in answer.headers)
        if not has_length and self.method != "HEAD" and answer.status != http.HTTPStatus.NO_CONTENT:
            self._handler.send_header("Content-Length", str(len(answer.body)))
        self._handler.end_headers()

    def write(self, part: bytes) -> None:
        """Send a part of the body."""
        self._handler.wfile.write(part)

    def hang_up(self) -> None:
        """End the connection without another word."""
        self._handler.close_connection = True

    def _sent(self, body: bytes) -> http.client.HTTPConnection:
        upstream = http.client.HTTPConnection(self.proxy.upstream, timeout=_UPSTREAM_TIMEOUT_S)
        upstream.putrequest(self.method, self._handler.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self._handler.headers.items():
            if not (self.proxy.drops_conditions and name.lower() in _CONDITIONS):
                upstream.putheader(name, value)
        upstream.endheaders(body)
        return upstream


Action = Callable[[Exchange], None]
Sender = Callable[[int], bool]


@dataclass
class Rule:
    """What happens to the `nth` request of a kind and to as many as `times` from there on.

    key, body: regular expressions that are searched for. by: whose requests count.
    """

    method: str
    key: str
    action: Action
    nth: int = 1
    times: int = 1
    body: str = ""
    by: Sender | None = None
    chosen: Callable[[str, int], bool] = lambda key, count: True
    """Of a key, and how many requests of this kind there were for it, whether this one is meant."""
    seen: Counter[str] = field(default_factory=Counter)
    done: int = 0
    happened: threading.Event = field(default_factory=threading.Event)
    """Set once the action began for the first time."""

    def takes(self, exchange: Exchange) -> bool:
        """Count a request; whether it is one of those that are meant. Called by one thread at a time."""
        if not re.fullmatch(self.method, exchange.method) or not re.search(self.key, exchange.key):
            return False
        if self.done >= self.times or (self.body and not re.search(self.body.encode(), exchange.body)):
            return False
        if self.by is not None and not self._is_by(exchange):
            return False
        self.seen[exchange.key] += 1
        if self.seen.total() < self.nth or not self.chosen(exchange.key, self.seen[exchange.key]):
            return False
        self.done += 1
        self.happened.set()
        return True

    def _is_by(self, exchange: Exchange) -> bool:
        assert self.by is not None
        try:
            return self.by(exchange.requester)
        except LookupError:
            return False


def by_a_worker(process: int) -> bool:
    """A Sender: any worker."""
    return is_worker(process)


def by_the_service(process: int) -> bool:
    """A Sender: not a worker."""
    return not is_worker(process)


class StoreProxy:
    """Listens at `endpoint`, which stays the same, for the store at `upstream` (host:port)."""

    def __init__(self, endpoint: str) -> None:
        self.upstream = endpoint.removeprefix("http://")
        self.drops_conditions = False
        """Whether If-Match and If-None-Match are kept from the store: it then overwrites whatever is there."""
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._server: _Server | None = None
        self._serving: threading.Thread | None = None
        self._port = 0
        self._timers: list[threading.Timer] = []
        self.come_back()
        self.endpoint = f"http://127.0.0.1:{self._port}"

    @contextmanager
    def when(self, rule: Rule) -> Iterator[Rule]:
        """Have a rule hold inside the block."""
        with self._lock:
            self._rules.append(rule)
        try:
            yield rule
        finally:
            with self._lock:
                self._rules.remove(rule)

    def action_for(self, exchange: Exchange) -> Action | None:
        """What the first rule that takes the request does to it."""
        with self._lock:
            return next((rule.action for rule in self._rules if rule.takes(exchange)), None)

    def go_away(self) -> None:
        """End every connection and refuse new ones."""
        with self._lock:
            server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        with self._lock:
            connections = list(self._connections)
        for connected in connections:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def come_back(self) -> None:
        """Take connections, again at the same address."""
        server = _Server(("127.0.0.1", self._port), _Handler)
        server.proxy = self
        self._port = server.server_address[1]
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": _POLL_S})
        serving.start()
        with self._lock:
            self._server, self._serving = server, serving

    def be_away_for(self, seconds: float) -> None:
        """Go away now and come back by itself; does nothing where it is away."""
        if self._server is None:
            return
        self.go_away()
        timer = threading.Timer(seconds, self.come_back)
        self._timers.append(timer)
        timer.start()

    def stop(self) -> None:
        """Go away for good."""
        for timer in self._timers:
            timer.join()
        self.go_away()
        assert self._serving is not None
        self._serving.join()

    def connected(self, connection: socket.socket) -> None:
        """Note a connection, to be ended when the store goes away."""
        with self._lock:
            self._connections.add(connection)

    def disconnected(self, connection: socket.socket) -> None:
        """Forget a connection."""
        with self._lock:
            self._connections.discard(connection)


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    proxy: StoreProxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Quiet: that connections break is what happens here."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        self.server.proxy.connected(self.connection)
        try:
            super().handle()
        finally:
            self.server.proxy.disconnected(self.connection)

    def _pass(self) -> None:
        exchange = Exchange(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))
        action = self.server.proxy.action_for(exchange) or pass_on
        action(exchange)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def pass_on(exchange: Exchange) -> None:
    """An Action: as if there were no proxy."""
    exchange.reply(exchange.forward())


@contextmanager
def store_proxy(endpoint: str) -> Iterator[StoreProxy]:
    """A proxy before the store at `http://host:port`, gone when the block is left."""
    proxy = StoreProxy(endpoint)
    try:
        yield proxy
    finally:
        proxy.stop()
