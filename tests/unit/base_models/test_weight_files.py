"""Where a base model's weights may lie: in parts, one checkpoint, the hub's cache. No torch, and no conversion."""

import json
import shutil
from pathlib import Path

import pytest

from base_models.catalog import BUNDLED, CatalogError, read_allow_list
from base_models.examination import examine
from base_models.weights import single_file
from base_models.weights.single_file import ready

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def copied(folder: Path) -> Path:
    shutil.copytree(BUNDLED["toon-64"], folder, ignore=shutil.ignore_patterns("sets", "recipe", "*.md"))
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The hub's cache of a repository: files are links into blobs."""
    made = tmp_path / "models--org--toon"
    snapshot = copied(made / "snapshots" / COMMIT)
    (made / "blobs").mkdir()
    for number, path in enumerate(sorted(path for path in snapshot.rglob("*") if path.is_file())):
        path.rename(made / "blobs" / str(number))
        path.symlink_to(made / "blobs" / str(number))
    (made / "refs").mkdir()
    (made / "refs" / "main").write_text(COMMIT)
    return made


def unused(subject: str, version: str, fill: object) -> Path:
    raise AssertionError(f"{subject} was to be converted")


@pytest.mark.parametrize("revision", ["", f"@{COMMIT}", "@main"])
def test_a_repository_of_the_hub_is_read_at_its_revision(repository: Path, revision: str) -> None:
    toon = read_allow_list(["toon-64"])["toon-64"]
    entry = read_allow_list([f"mine={repository}{revision}"])["mine"]
    assert entry.folder == repository / "snapshots" / COMMIT
    assert entry.digest() == toon.digest()
    assert ready({"mine": entry}, unused) == {"mine": entry}
    told = examine(f"mine={repository}{revision}")
    assert (told["problem"], told["size_bytes"]) == ("", examine("toon-64")["size_bytes"])


@pytest.mark.parametrize("revision", ["@other", "@", "@../.."])
def test_a_revision_that_is_not_there_is_named_with_those_that_are(repository: Path, revision: str) -> None:
    with pytest.raises(CatalogError, match=f"no snapshot of .*; there are {COMMIT}, main"):
        read_allow_list([f"mine={repository}{revision}"])


def test_a_repository_without_main_wants_a_revision(repository: Path) -> None:
    (repository / "refs" / "main").unlink()
    with pytest.raises(CatalogError, match="no snapshot of 'main'"):
        read_allow_list([f"mine={repository}"])


def test_a_folder_may_have_an_at_sign_in_its_name(tmp_path: Path) -> None:
    folder = copied(tmp_path / "toon@2")
    assert read_allow_list([f"mine={folder}"])["mine"].folder == folder


@pytest.mark.parametrize("item", ["org/toon", "mine=org/toon"])
def test_an_id_of_the_hub_is_answered_with_what_to_run(item: str) -> None:
    with pytest.raises(CatalogError, match=r"`hf download org/toon --revision REVISION --local-dir /models/toon`"):
        read_allow_list([item])


def test_a_checkpoint_counts_only_for_parts_without_weights(tmp_path: Path) -> None:
    folder = copied(tmp_path / "toon")
    (weights,) = (folder / "unet").glob("*.safetensors")
    shutil.copy(weights, folder / "toon.safetensors")
    entries = read_allow_list([f"mine={folder}"])
    assert ready(entries, unused) == entries
    assert examine(f"mine={folder}")["to_convert_bytes"] == 0
    weights.unlink()
    told = examine(f"mine={folder}")
    assert told["problem"] == ""
    assert told["to_convert_bytes"] == (folder / "toon.safetensors").stat().st_size
    with pytest.raises(AssertionError, match="was to be converted"):
        ready(entries, unused)


def test_weights_that_are_nowhere_damaged_or_ambiguous_stop_a_start_and_are_told(tmp_path: Path) -> None:
    folder = copied(tmp_path / "toon")
    (weights,) = (folder / "unet").glob("*.safetensors")
    checkpoint = weights.rename(folder / "a.safetensors")
    shutil.copy(checkpoint, folder / "b.safetensors")
    assert_refused(folder, "holds 2 checkpoints (a.safetensors, b.safetensors)")
    (folder / "b.safetensors").unlink()
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    assert_refused(folder, "a.safetensors: ")
    checkpoint.rename(folder / "a.ckpt")
    assert_refused(folder, "holds no checkpoint; allowed are weights in every part's folder, or one checkpoint")


def test_a_shard_that_has_not_come_yet_is_named(tmp_path: Path) -> None:
    folder = copied(tmp_path / "toon")
    index = {"weight_map": {"x.weight": "diffusion_pytorch_model-00002-of-00002.safetensors"}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert_refused(folder, "unet/diffusion_pytorch_model-00002-of-00002.safetensors is missing")


def assert_refused(folder: Path, words: str) -> None:
    with pytest.raises(CatalogError) as refused:
        ready(read_allow_list([f"mine={folder}"]), unused)
    assert words in str(refused.value)
    assert words in str(examine(f"mine={folder}")["problem"])


def test_any_change_of_the_folder_is_another_version(tmp_path: Path) -> None:
    folder = copied(tmp_path / "toon")
    entry = read_allow_list([f"mine={folder}"])["mine"]
    seen = {single_file._version(entry)}
    for path in (folder / "unet" / "config.json", next((folder / "unet").glob("*.safetensors"))):
        path.write_bytes(path.read_bytes())
        seen.add(single_file._version(entry))
    assert len(seen) == 3
    assert single_file._version(entry) in seen
