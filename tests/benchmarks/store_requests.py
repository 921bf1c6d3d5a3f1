"""How many requests the bucket gets for a training, an idle trainer, an image: counted on the wire of a real run.

Between the services and a real S3 server stands a proxy that counts. Its one rule: it changes nothing, so what it
counts is what a bucket would be billed for. `python -m tests.benchmarks.store_requests [--seconds 30]` prints a table.
"""

import argparse
import http.client
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import personae
from base_models.catalog import BUNDLED
from tests.real_store import RealStore, running_store
from tests.service_process import running_service, service_environment

PICTURES = BUNDLED["toon-64"] / "sets" / "micah-b" / "train"
IMAGES = 8
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}


class CountingProxy:
    """A proxy in front of an S3 server."""

    def __init__(self, endpoint: str) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        behind, note = urlsplit(endpoint).netloc, self._note

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                note(self.command, self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                connection = http.client.HTTPConnection(behind, timeout=60)
                try:
                    # With the Host of the proxy: it is part of what the client signed.
                    connection.request(self.command, self.path, body, dict(self.headers))
                    answer = connection.getresponse()
                    content = answer.read()
                finally:
                    connection.close()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _HOP_BY_HOP | {"content-length", "date", "server"}:
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator["CountingProxy"]:
        """Serve until the block is left."""
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def take(self) -> Counter[str]:
        """What was counted since the last time: requests by kind."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return counts

    def _note(self, method: str, path: str) -> None:
        is_list = method == "GET" and "list-type" in parse_qs(urlsplit(path).query, keep_blank_values=True)
        with self._lock:
            self._counts["LIST" if is_list else method] += 1


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=30.0, help="how long idle services are watched")
    parser.add_argument("--steps", type=int, default=30, help="of the training")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_store(folder) as store, CountingProxy(store.endpoint).running() as proxy:
            counts = measure(RealStore(proxy.endpoint, store.store, store.server), proxy, folder, arguments)
    kinds = ("GET", "LIST", "PUT", "HEAD", "POST", "DELETE")
    print(f"| what | {' | '.join(kinds)} | in all |\n| --- |{' --- |' * (len(kinds) + 1)}")
    for what, found in counts.items():
        print(f"| {what} | {' | '.join(str(found[kind]) for kind in kinds)} | {found.total()} |")


def measure(
    store: RealStore, proxy: CountingProxy, folder: Path, arguments: argparse.Namespace
) -> dict[str, Counter[str]]:
    """The counts of each phase, one after another."""
    counts: dict[str, Counter[str]] = {}
    environment = service_environment(store, PERSONAE_TRAINER_WORKERS="1", OMP_NUM_THREADS="1")
    environment |= {"PERSONAE_INFERENCE_CACHE_DIR": str(folder / "cache")}
    with (
        running_service("trainer_service", environment, folder / "trainer.log") as trainer,
        personae.Client(trainer.address, None) as client,
    ):
        counts["start of a trainer"] = proxy.take()
        time.sleep(arguments.seconds)
        counts[f"an idle trainer, {arguments.seconds:g} s"] = proxy.take()
        began_s = time.monotonic()
        adapter = client.train(PICTURES, name="counted", steps=arguments.steps, batch_size=2).wait()
        seconds = time.monotonic() - began_s
        counts[f"upload of 16 pictures and a training of {arguments.steps} steps, {seconds:.0f} s"] = proxy.take()
    proxy.take()
    with (
        running_service("inference_service", environment, folder / "inference.log") as inference,
        personae.Client(None, inference.address) as client,
    ):
        counts["start of an inference service"] = proxy.take()
        time.sleep(arguments.seconds)
        counts[f"an idle inference service, {arguments.seconds:g} s"] = proxy.take()
        list(client.generate([adapter.prompt("happy")], adapter=adapter, seeds=[[1]], steps=2))
        counts["the first image of an adapter"] = proxy.take()
        time.sleep(5.0)
        list(client.generate([adapter.prompt("sad")], adapter=adapter, seeds=[[2]], steps=2))
        counts["a further image, after 5 s"] = proxy.take()
        list(client.generate([adapter.prompt("sad")], adapter=adapter, seeds=[list(range(3, 3 + IMAGES))], steps=2))
        counts[f"{IMAGES} images of one request, at once after that"] = proxy.take()
    return counts


if __name__ == "__main__":
    main()
