"""`python -m service_kit.bucket_examination ALLOW-LIST`: whether the base models that lie in the bucket are there.

For each `name=bucket:prefix` one JSON object a line on standard output, of the form that `base_models.examination` has;
`folder` is the entry's place in the bucket. Nothing is fetched but the model's index: what else is wrong with a folder
shows once it was.
"""

import asyncio
import json
import os
import sys

from service_kit.bucket_folders import SCHEME, files_below, prefix_of
from service_kit.minio_store import MinioStore
from service_kit.serving import StartError, connect_store
from service_kit.settings import SettingsError, StoreSettings, read_settings
from service_kit.store import StoreError


def examine(store: MinioStore, prefix: str) -> tuple[str, int, str]:
    """The pipeline, how many bytes a start would fetch, and what is wrong. Raises StoreError."""
    files = files_below(store, prefix)
    size = sum(file.size_bytes for file in files.values())
    if "model_index.json" not in files:
        return "", size, f"no model_index.json is among the {len(files)} files of {SCHEME}{prefix}"
    if not any(path.endswith(".safetensors") for path in files):
        return "", size, f"no safetensors weights are among the {len(files)} files of {SCHEME}{prefix}"
    try:
        return str(json.loads(store.get(f"{prefix}model_index.json").body)["_class_name"]), size, ""
    except (ValueError, KeyError, TypeError) as error:
        return "", size, f"{SCHEME}{prefix}model_index.json: {type(error).__name__}: {error}"


def main() -> None:
    """Say what there is to say of each."""
    for item in sys.argv[1].split(","):
        pipeline, size, problem, prefix = "", 0, "", ""
        try:
            prefix = prefix_of(item) or ""
            settings = read_settings(StoreSettings, os.environ, others=())
            pipeline, size, problem = examine(asyncio.run(connect_store(settings)), prefix)
        except (StartError, SettingsError, StoreError) as error:
            problem = str(error)
        told = {"event": "base_model", "name": item.strip().partition("=")[0], "folder": f"{SCHEME}{prefix}"}
        told |= {"pipeline": pipeline, "problem": problem}
        print(json.dumps(told | {"size_bytes": size, "to_convert_bytes": 0}), flush=True)


if __name__ == "__main__":
    main()
