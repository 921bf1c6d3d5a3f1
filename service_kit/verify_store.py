"""`python -m service_kit.verify_store`: hold the configured store against everything the services need of it.

One JSON object a line on standard output: `{"event": "store", …}`, a `check` for each, last the `verdict`. Exit status
0 where every check passed. It reads the PERSONAE_S3_* variables and passes over all others, so that it runs in any pod.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
import uuid
from types import FrameType

from service_kit.logs import configure_logs
from service_kit.minio_store import open_store
from service_kit.serving import StartError, connect_store
from service_kit.settings import PREFIX, SettingsError, StoreSettings, read_settings
from service_kit.store import StoreError
from service_kit.store_bench import Effort
from service_kit.store_verification import QUICK, verify

_WRITERS = 12


def main() -> int:
    """Verify, and say whether every check passed."""
    parser = argparse.ArgumentParser(prog="python -m service_kit.verify_store")
    parser.add_argument("--rounds", type=int, default=10, help="how often each race is run, 1 or more")
    parser.add_argument("--quick", action="store_true", help="what a service does at its start: below a second")
    asked = parser.parse_args()
    rounds = asked.rounds
    if rounds < 1:
        parser.error(f"--rounds: found {rounds}; allowed is 1 or more")
    configure_logs()
    signal.signal(signal.SIGTERM, _interrupt_once)
    signal.signal(signal.SIGINT, _interrupt_once)
    try:
        environ = {name: value for name, value in os.environ.items() if name.startswith(f"{PREFIX}S3_")}
        settings = read_settings(StoreSettings, environ, others=())
        here = asyncio.run(connect_store(settings))
        _say("store", endpoint=settings.s3_endpoint, bucket=settings.s3_bucket, clock_ahead_s=here.clock_ahead_s())
        verdicts = []
        effort = QUICK if asked.quick else Effort(_WRITERS, rounds, whole=True)
        with contextlib.closing(verify(here, open_store(settings), uuid.uuid4().hex, effort)) as outcomes:
            for outcome in outcomes:
                _say("check", **dataclasses.asdict(outcome))
                verdicts.append(outcome.verdict)
    except (SettingsError, StartError, StoreError) as error:
        sys.exit(f"cannot verify: {error}")
    except KeyboardInterrupt:
        return 130
    passed = set(verdicts) == {"passed"}
    _say("verdict", passed=passed)
    return 0 if passed else 1


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    """Leave by way of the clean-up, which a second signal does not cut short: it ends in bounded time."""
    for again in (signal.SIGTERM, signal.SIGINT):
        signal.signal(again, signal.SIG_IGN)
    raise KeyboardInterrupt


def _say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event} | fields), flush=True)


if __name__ == "__main__":
    sys.exit(main())
