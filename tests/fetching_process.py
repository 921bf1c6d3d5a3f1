"""`python -m tests.fetching_process PREFIX CACHE [DIES_AT]`: what a start does for a base model in the bucket.

It prints `{"folder": …, "parts": N}`, N the parts that it asked the store for, and lives until its input ends. DIES_AT:
how a key ends over whose second part it kills itself with kill -9.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from service_kit.bucket_folders import fetched_folder
from service_kit.folder_cache import FolderCache
from service_kit.minio_store import MinioStore
from service_kit.settings import StoreSettings, read_settings


class CountingStore(MinioStore):
    """Counts the parts that are asked of it, and kills the process over one."""

    parts = 0
    dies_at = ""

    def get_part(self, key: str, etag: str, offset: int, length: int) -> bytes:
        self.parts += 1
        if self.dies_at and offset and key.endswith(self.dies_at):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().get_part(key, etag, offset, length)


def counting_store(environment: Mapping[str, str]) -> CountingStore:
    """On the store that the environment names."""
    settings = read_settings(StoreSettings, environment, others=("BASE_",))
    return CountingStore(settings.s3_endpoint, *settings.keys, settings.s3_bucket, settings.s3_region)


if __name__ == "__main__":
    store = counting_store(os.environ)
    store.dies_at = "".join(sys.argv[3:])
    folder = fetched_folder(store, sys.argv[1], "subject", FolderCache(Path(sys.argv[2])))
    print(json.dumps({"folder": str(folder), "parts": store.parts}), flush=True)
    sys.stdin.read()
