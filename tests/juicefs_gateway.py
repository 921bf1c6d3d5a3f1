"""A real S3 server that ignores conditions: JuiceFS's gateway, for tests of what must be refused.

Its one rule: whatever happens, the process is gone when the block is left.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service_kit.minio_store import MinioStore
from service_kit.store import StoreError
from tests.real_store import free_ports

_ACCESS_KEY, _SECRET_KEY, _BUCKET = "personae", "for-tests-only", "personae"
_READY_WITHIN_S = 60.0
_LOOK_AGAIN_S = 0.1


@contextmanager
def running_gateway(folder: Path) -> Iterator[dict[str, str]]:
    """Start a gateway with its data in the folder; what a service needs in its environment to use it."""
    juicefs = str(Path(sys.executable).with_name("juicefs"))
    metadata, log = f"sqlite3://{folder / 'metadata.db'}", folder / "gateway.log"
    environment = os.environ | {"MINIO_ROOT_USER": _ACCESS_KEY, "MINIO_ROOT_PASSWORD": _SECRET_KEY, "HOME": str(folder)}
    port, metrics_port = free_ports(2)
    with log.open("ab") as output:
        subprocess.run(
            [juicefs, "format", "--storage=file", f"--bucket={folder}/data/", metadata, _BUCKET],
            env=environment,
            stdout=output,
            stderr=output,
            check=True,
        )
        # ETags are kept, so that the conditions alone are what it fails.
        command = [juicefs, "gateway", "--keep-etag", "--no-usage-report", f"--cache-dir={folder / 'cache'}"]
        command += [f"--log={folder / 'minio.log'}", f"--metrics=127.0.0.1:{metrics_port}"]
        process = subprocess.Popen(
            [*command, metadata, f"127.0.0.1:{port}"],
            env=environment,
            stdout=output,
            stderr=output,
        )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(MinioStore(endpoint, _ACCESS_KEY, _SECRET_KEY, _BUCKET, "us-east-1"), process, log)
        yield {
            "PERSONAE_S3_ENDPOINT": endpoint,
            "PERSONAE_S3_ACCESS_KEY": _ACCESS_KEY,
            "PERSONAE_S3_SECRET_KEY": _SECRET_KEY,
            "PERSONAE_S3_BUCKET": _BUCKET,
        }
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(store: MinioStore, gateway: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + _READY_WITHIN_S
    while True:
        try:
            store.ensure_bucket(create=False)
            return
        except StoreError:
            if gateway.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"the gateway did not start:\n{log.read_text()[-4000:]}") from None
            time.sleep(_LOOK_AGAIN_S)
