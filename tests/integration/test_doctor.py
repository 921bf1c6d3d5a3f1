"""`personae doctor` as a whole, on a real object store: what it says of it with right and with wrong settings."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from personae.cli import doctor, store_findings, told
from tests.real_store import RealStore, free_ports


def examined(environment: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    """Exit code, and each finding by its check."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PERSONAE_")}
    ports = free_ports(2)
    words = ["--trainer", f"127.0.0.1:{ports[0]}", "--inference", f"127.0.0.1:{ports[1]}"]
    for name in ("trainer-health", "inference-health", "trainer-metrics", "inference-metrics"):
        words += [f"--{name}", "127.0.0.1:0"]
    ended = subprocess.run(
        [sys.executable, "-m", "personae.cli", "doctor", "--json", *words],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.stderr == ""
    return ended.returncode, {finding["check"]: finding for finding in json.loads(ended.stdout)["findings"]}


def test_a_good_store_has_nothing_wrong_and_is_left_as_it_was(real_store: RealStore) -> None:
    code, found = examined(real_store.environment())
    assert code == 0, found
    for check in ("object store", "conditional writes", "clock", "torch", "base model toon-64", "port trainer"):
        assert found[check]["verdict"] == "ok"
    assert "port store" not in found
    assert list(real_store.store.keys("verify/")) == []


@pytest.mark.parametrize(
    ("setting", "value", "remedy"),
    [
        ("PERSONAE_S3_SECRET_KEY", "wrong", "PERSONAE_S3_SECRET_KEY"),
        ("PERSONAE_S3_BUCKET", "no-such-bucket", "PERSONAE_S3_BUCKET"),
        ("PERSONAE_S3_ENDPOINT", "http://127.0.0.1:1", "start the object store or correct the address"),
        ("PERSONAE_S3_ENDPOINT", "here", "http://host:port"),
    ],
)
def test_wrong_settings_are_wrong_with_what_to_change(
    real_store: RealStore, setting: str, value: str, remedy: str
) -> None:
    settings = {"PERSONAE_S3_PATIENCE_S": "0"} | real_store.environment() | {setting: value}
    with told.started("service_kit.verify_store", ["--quick"], settings) as verification:
        (found,) = store_findings.external(verification, settings["PERSONAE_S3_ENDPOINT"])
    assert (found.check, found.verdict) == ("object store", "wrong")
    assert remedy in found.remedy
    assert found.found


def test_base_models_in_the_bucket_are_there_or_wrong_with_what_to_change(real_store: RealStore) -> None:
    files = {
        "whole/model_index.json": b'{"_class_name": "FluxPipeline"}',
        "whole/unet/w.safetensors": b"12345678" * 10**6,
    }
    for name, body in (files | {"half/unet/w.safetensors": b"", "empty/model_index.json": b"{}"}).items():
        real_store.store.put(f"base-models/of-the-doctor/{name}", body)
    allowed = "toon-64,a=bucket:base-models/of-the-doctor/whole,b=bucket:base-models/of-the-doctor/half"
    allowed += ",c=bucket:base-models/of-the-doctor/empty,d=bucket:projects/x"
    (_, local), (module, items) = doctor._examinations(allowed)
    assert local == "toon-64"
    with told.started(module, [items], real_store.environment()) as examination:
        whole, half, empty, refused = doctor.model_findings(examination)
    assert (whole.verdict, whole.found) == ("ok", "FluxPipeline, 8 MB in bucket:base-models/of-the-doctor/whole/")
    assert "no model_index.json is among the 1 files" in half.found
    assert "no safetensors weights are among the 1 files" in empty.found
    assert "below projects/ is what callers own" in refused.found
    assert {finding.verdict for finding in (half, empty, refused)} == {"wrong"}
