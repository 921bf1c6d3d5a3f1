"""Base models whose weights lie in one checkpoint, through real processes: converted once, and then folders as any."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import personae
from base_models.catalog import read_allow_list
from base_models.weights.single_file import ready
from service_kit.folder_cache import FolderCache
from tests.benchmarks.random_base_model import write_tiny
from tests.original_names import write_stable_diffusion
from tests.real_store import RealStore
from tests.service_process import running_service, service_environment

pytestmark = pytest.mark.slow

_PREFIX = "base-models/from-one-file/"
_CONVERT = """
import sys
from pathlib import Path
from base_models.catalog import read_allow_list
from base_models.weights.single_file import ready
from service_kit.folder_cache import FolderCache
ready(read_allow_list([f"single={sys.argv[1]}"]), FolderCache(Path(sys.argv[2])).folder)
"""
_LOOK_AGAIN_S = 0.05


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model in parts, and the same in one checkpoint."""
    folder: Path = tmp_path_factory.mktemp("models")
    write_tiny(folder / "parts")
    write_stable_diffusion(folder / "parts", folder / "single")
    return folder / "parts", folder / "single"


def test_a_checkpoint_from_the_bucket_draws_what_its_folder_draws(
    real_store: RealStore, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    parts, single = folders
    for path in single.rglob("*"):
        if path.is_file():
            real_store.store.put(_PREFIX + str(path.relative_to(single)), path.read_bytes())
    cache = tmp_path / "cache"
    environment = service_environment(
        real_store,
        PERSONAE_BASE_MODELS=f"parts={parts},single=bucket:{_PREFIX}",
        PERSONAE_BASE_MODEL_CACHE=str(cache),
        PERSONAE_INFERENCE_CACHE_DIR=str(tmp_path / "adapters"),
    )
    with running_service("inference_service", environment, tmp_path / "log") as service:
        drawn = [pixels(service.address, name) for name in ("parts", "single")]
    assert drawn[0] == drawn[1]
    made = {path: path.lstat().st_mtime_ns for path in cache.rglob("*.safetensors")}
    assert len(made) == 4
    with running_service("trainer_service", environment | {"PERSONAE_TRAINER_WORKERS": "0"}, tmp_path / "log"):
        pass
    worker = subprocess.run(
        [sys.executable, "-m", "trainer_service.worker"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert json.loads(worker.stdout)["ready"], worker.stderr
    assert {path: path.lstat().st_mtime_ns for path in cache.rglob("*.safetensors")} == made


def pixels(address: str, base_model: str) -> bytes:
    with personae.Client(inference=address) as client:
        (image,) = client.generate("a hat", base_model=base_model, seeds=[1], steps=2)
        return image.picture().tobytes()


def test_a_conversion_whose_process_is_killed_ends_and_is_begun_anew(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    parts, single = folders
    cache = tmp_path / "cache"
    with subprocess.Popen([sys.executable, "-c", _CONVERT, str(single), str(cache)]) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until(lambda: children.read_text().split() != [])
        (child,) = children.read_text().split()
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{child}/exe").exists())
    assert list(cache.rglob("*.safetensors")) == []
    (entry,) = ready(read_allow_list([f"single={single}"]), FolderCache(cache).folder).values()
    assert entry.digest() == read_allow_list([f"single={parts}"])["single"].digest()

    damaged = entry.folder / "unet" / "diffusion_pytorch_model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    (mended,) = ready(read_allow_list([f"single={single}"]), FolderCache(cache).folder).values()
    assert mended.folder == entry.folder
    assert mended.digest() == read_allow_list([f"single={parts}"])["single"].digest()


def wait_until(holds, within_s: float = 120.0) -> None:
    give_up = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(_LOOK_AGAIN_S)
