"""The inference service as it is, over one of the contestants: `python -m tests.benchmarks.serving_engines.service`.

It reads the service's own `PERSONAE_…` variables, the contestant's name from SERVING_CONTESTANT, and the address from
SERVING_COUNTERS, where it answers any HTTP request with what its engine counted, as JSON.
"""

import json
import os
import threading
from dataclasses import asdict
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from base_models.catalog import BaseModelEntry
from inference_service.__main__ import main
from inference_service.settings import InferenceSettings
from service_kit.serving import run_service
from tests.benchmarks.serving_engines.counters import CountingEngine, taken
from tests.benchmarks.serving_engines.factories import FACTORIES


def load_contestant(entries: list[BaseModelEntry], settings: InferenceSettings) -> dict[str, CountingEngine]:
    """The engine of the one base model that a benchmark serves; its counters are told from then on."""
    (entry,) = entries
    engine = FACTORIES[os.environ["SERVING_CONTESTANT"]](entry, torch.float32)
    host, _, port = os.environ["SERVING_COUNTERS"].rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), _handler_of(engine))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return {entry.name: engine}


def _handler_of(engine: CountingEngine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(asdict(taken(engine.counters))).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *values: Any) -> None:
            """Nothing: the service's log is the service's."""

    return Handler


if __name__ == "__main__":
    run_service(partial(main, load_contestant))
