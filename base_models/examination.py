"""`python -m base_models.examination ALLOW-LIST`: whether each allowed base model is there and whole. No torch.

One JSON object a line on standard output: `{"event": "base_model", "name": …, "folder": …, "pipeline": …, "size_bytes":
…, "problem": …}`; `problem` is empty where there is none. What it finds is what a service would stumble over when it
loads the model, but for the weights' values, which are not read.
"""

import json
import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

from base_models.catalog import BaseModelEntry, CatalogError, read_allow_list
from base_models.safetensors_header import NotSafetensors, read_header

# Classes of parts that are settings alone, by how they end.
_WITHOUT_WEIGHTS = ("Scheduler", "Tokenizer", "TokenizerFast", "ImageProcessor", "FeatureExtractor")


def examine(item: str) -> dict[str, object]:
    """What there is to say of one entry of an allow-list, `name` or `name=/folder`."""
    try:
        (entry,) = read_allow_list([item]).values()
    except CatalogError as error:
        return _told(item.strip().partition("=")[0], problem=str(error))
    files = sorted(path for part in _parts(entry) for path in part.glob("*.safetensors"))
    size = sum(path.stat().st_size for path in files)
    return _told(entry.name, str(entry.folder), entry.pipeline, size, "; ".join(_problems(entry)))


def _told(name: str, folder: str = "", pipeline: str = "", size_bytes: int = 0, problem: str = "") -> dict[str, object]:
    return {
        "event": "base_model",
        "name": name,
        "folder": folder,
        "pipeline": pipeline,
        "size_bytes": size_bytes,
        "problem": problem,
    }


def _parts(entry: BaseModelEntry) -> list[Path]:
    """The folders that hold weights: what `model_index.json` says the pipeline is made of, but its tokenizers."""
    index = json.loads((entry.folder / "model_index.json").read_text())
    return [
        entry.folder / part
        for part, kind in index.items()
        if isinstance(kind, list) and part not in entry.traits.without and _has_weights(kind)
    ]


def _has_weights(kind: list[str | None]) -> bool:
    """kind: a library and a class of it, of nothing where the pipeline is without that part."""
    _, class_name = kind
    return class_name is not None and not class_name.endswith(_WITHOUT_WEIGHTS)


def _problems(entry: BaseModelEntry) -> Iterator[str]:
    for part in _parts(entry):
        files = sorted(part.glob("*.safetensors"))
        if not files:
            yield f"{part} holds no safetensors weights"
        if not (part / "config.json").is_file():
            yield f"{part / 'config.json'} is missing"
        for path in files:
            if problem := _damage(path):
                yield f"{path}: {problem}"


def _damage(path: Path) -> str:
    """Why the file is no whole safetensors file; empty where it is one."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
            read_header(body)
    except (OSError, ValueError, NotSafetensors) as error:
        return str(error)
    return ""


if __name__ == "__main__":
    for listed in sys.argv[1].split(","):
        print(json.dumps(examine(listed)), flush=True)
