"""Which files of a folder hold a base model's weights: part by part, or all in one checkpoint. Imports no torch.

Its one rule: what the parts' own folders hold is what counts; a checkpoint at the folder's top serves the parts that
hold nothing, so a published folder that has both is read as it always was.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from base_models.catalog import BaseModelEntry, CatalogError
from base_models.safetensors_header import NotSafetensors, file_header

# Classes of parts that are settings alone, by how they end.
_WITHOUT_WEIGHTS = ("Scheduler", "Tokenizer", "TokenizerFast", "Processor", "FeatureExtractor")


def parts(entry: BaseModelEntry) -> dict[str, tuple[str, str]]:
    """Library and class of each part that has weights: what `model_index.json` names, but tokenizers and the like."""
    index = json.loads((entry.folder / "model_index.json").read_text())
    return {
        part: (kind[0], kind[1])
        for part, kind in index.items()
        # Beside parts it holds settings, lists among them; a part that the pipeline is without is of no class.
        if isinstance(kind, list)
        and len(kind) == 2
        and all(isinstance(word, str) for word in kind)
        and part not in entry.traits.without
        and not kind[1].endswith(_WITHOUT_WEIGHTS)
    }


def files_of(folder: Path) -> list[Path]:
    """The safetensors files of a part's folder."""
    return sorted(folder.glob("*.safetensors"))


def parts_in_checkpoint(entry: BaseModelEntry) -> list[str]:
    """The parts whose weights are nowhere but in the folder's checkpoint. Raises OSError, ValueError."""
    return [part for part in parts(entry) if not files_of(entry.folder / part)]


def checkpoint_of(entry: BaseModelEntry) -> Path:
    """The one checkpoint at the folder's top. Raises CatalogError where there is none, or several."""
    found = files_of(entry.folder)
    if len(found) != 1:
        without = ", ".join(str(entry.folder / part) for part in parts_in_checkpoint(entry))
        listed = f"{len(found)} checkpoints ({', '.join(path.name for path in found)})" if found else "no checkpoint"
        raise CatalogError(
            f"{entry.name}: no safetensors weights are in {without}, and {entry.folder} holds {listed}; allowed are "
            "weights in every part's folder, or one checkpoint (*.safetensors) at the top for the parts without"
        )
    return found[0]


def problems(entry: BaseModelEntry) -> Iterator[str]:
    """What is missing or damaged, but for the weights' values, which are not read."""
    in_checkpoint = parts_in_checkpoint(entry)
    files = [path for part in parts(entry) for path in files_of(entry.folder / part)]
    if in_checkpoint:
        try:
            files.append(checkpoint_of(entry))
        except CatalogError as error:
            yield str(error).removeprefix(f"{entry.name}: ")
    for part in parts(entry):
        config = entry.folder / part / "config.json"
        if not config.is_file():
            yield f"{config} is missing"
        yield from _missing_shards(entry.folder / part)
    for path in files:
        if problem := _damage(path):
            yield f"{path}: {problem}"


def _missing_shards(part: Path) -> Iterator[str]:
    for index in sorted(part.glob("*.safetensors.index.json")):
        try:
            shards = {str(name) for name in json.loads(index.read_text())["weight_map"].values()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            yield f"{index}: {type(error).__name__}: {error}"
            continue
        for shard in sorted(shards):
            if not (part / shard).is_file():
                yield f"{part / shard} is missing, which {index.name} names"


def _damage(path: Path) -> str:
    """Why the file is no whole safetensors file; empty where it is one."""
    try:
        file_header(path)
    except (OSError, ValueError, NotSafetensors) as error:
        return str(error)
    return ""
