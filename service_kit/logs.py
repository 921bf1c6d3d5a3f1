"""Structured logs: one JSON object a line on standard error, so that standard output stays free for the ready line.

Every line of a call or a training bears its ids (`call_context.py`); a call's last line says what came of it.
"""

import json
import logging
import sys
from datetime import UTC, datetime

from service_kit.call_context import present_ids

FIELDS = "fields"
"""`extra={FIELDS: {…}}` of a record: further members of its line."""


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON, with the ids of what is going on."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **present_ids(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure_logs() -> None:
    """Send every log record of this process to standard error. Called once, by a `__main__`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # These tell of every request at INFO.
    for chatty in ("httpx", "urllib3", "diffusers", "transformers", "accelerate"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # It warns at every repeat; the store says what came of them.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
