"""`python -m base_models.examination ALLOW-LIST`: whether each allowed base model is there and whole. No torch.

One JSON object a line on standard output: `{"event": "base_model", "name": …, "folder": …, "pipeline": …, "size_bytes":
…, "to_convert_bytes": …, "problem": …}`; `to_convert_bytes` is the size of a checkpoint that a service converts at its
first start, `problem` is empty where there is none. What it finds is what a service would stumble over when it loads
the model, but for the weights' values, which are not read.
"""

import json
import sys

from base_models.catalog import CatalogError, read_allow_list
from base_models.weights.weight_files import checkpoint_of, files_of, parts, parts_in_checkpoint, problems


def examine(item: str) -> dict[str, object]:
    """What there is to say of one entry of an allow-list, `name` or `name=/folder`."""
    try:
        (entry,) = read_allow_list([item]).values()
        found = "; ".join(problems(entry))
        size = sum(path.stat().st_size for part in parts(entry) for path in files_of(entry.folder / part))
        to_convert = checkpoint_of(entry).stat().st_size if parts_in_checkpoint(entry) and not found else 0
    except (CatalogError, OSError) as error:
        return _told(item.strip().partition("=")[0], problem=str(error))
    return _told(entry.name, str(entry.folder), entry.pipeline, size + to_convert, to_convert, found)


def _told(
    name: str, folder: str = "", pipeline: str = "", size_bytes: int = 0, to_convert_bytes: int = 0, problem: str = ""
) -> dict[str, object]:
    return {
        "event": "base_model",
        "name": name,
        "folder": folder,
        "pipeline": pipeline,
        "size_bytes": size_bytes,
        "to_convert_bytes": to_convert_bytes,
        "problem": problem,
    }


if __name__ == "__main__":
    for listed in sys.argv[1].split(","):
        print(json.dumps(examine(listed)), flush=True)
