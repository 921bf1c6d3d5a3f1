"""The script that fills the volume of base models, against a real S3 server: what it brings, keeps and refuses."""

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.manifests.rendered import COMPONENTS, OVERLAYS, REPOSITORY, of_kind, render
from tests.real_store import RealStore

_SCRIPT = COMPONENTS / "weights" / "fill_weights.py"
_SPEC = importlib.util.spec_from_file_location("fill_weights", _SCRIPT)
assert _SPEC is not None
assert _SPEC.loader is not None
script = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(script)
_FILES = {"model_index.json": b"{}", "unet/weights.safetensors": bytes(range(256)) * 80_000}


def fill(store: RealStore, target: Path) -> subprocess.CompletedProcess[str]:
    """Run it as its Job does."""
    (job,) = of_kind(render(OVERLAYS / "air-gapped"), "Job")
    python, script, _ = job["spec"]["template"]["spec"]["containers"][0]["command"]
    assert (python, Path(script).name) == ("python", _SCRIPT.name)
    environment = store.environment() | {
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/client",
        "PATH": os.environ["PATH"],
        # The Job's ConfigMap has settings of both services.
        "PERSONAE_BASE_MODELS": "toon-64",
    }
    command = [sys.executable, str(_SCRIPT), str(target)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def put(store: RealStore, folder: str, files: dict[str, bytes]) -> None:
    """Upload a base model with its list."""
    sums = ""
    for name, body in files.items():
        store.store.put(f"base-models/{folder}/{name}", body)
        sums += f"{hashlib.sha256(body).hexdigest()}  ./{name}\n"
    store.store.put(f"base-models/{folder}/SHA256SUMS", sums.encode())


def test_folders_are_brought_once_mended_where_damaged_and_refused_where_the_bucket_is_wrong(
    real_store: RealStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(real_store, "sdxl", _FILES)
    # Still being uploaded: its list comes last.
    real_store.store.put("base-models/half/model_index.json", b"{}")
    filled = fill(real_store, tmp_path)
    assert filled.returncode == 0, filled.stderr
    there = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert there == {Path("sdxl", name): body for name, body in _FILES.items()}

    damaged = tmp_path / "sdxl" / "model_index.json"
    damaged.write_bytes(b"[]")
    script.fill(real_store.store, tmp_path)
    assert damaged.read_bytes() == b"{}"
    assert f"{tmp_path}/sdxl/unet/weights.safetensors: is there" in capsys.readouterr().out

    real_store.store.put("base-models/sdxl/model_index.json", b"{ }")
    damaged.unlink()
    with pytest.raises(script.BadSums, match="its SHA256SUMS says"):
        script.fill(real_store.store, tmp_path)
    assert not damaged.exists()

    real_store.store.put("base-models/sdxl/SHA256SUMS", f"{'0' * 64}  ../../outside\n".encode())
    refused = fill(real_store, tmp_path)
    assert refused.returncode == 1
    assert "a path below the folder" in refused.stderr
    assert "Traceback" not in refused.stderr
