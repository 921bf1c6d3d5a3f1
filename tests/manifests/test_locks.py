"""The images' locks: every need of a group is met by one pin, every pin has hashes, and pins need nothing beyond them.

Whether a registry still resolves to the same is asked by a slow test; nothing else here needs one.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from k8s.images.lock import IMAGES, PYTHON, lock_of, of_torch
from tests.manifests.rendered import REPOSITORY

each_image = pytest.mark.parametrize("image", IMAGES)
# What markers are asked about: the images, not this machine.
_THERE = {
    "python_version": PYTHON,
    "python_full_version": f"{PYTHON}.3",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}


def pins(image: str) -> dict[str, str]:
    """Versions by name."""
    return dict(re.findall(r"(?m)^([a-z0-9-]+)(?:\[[a-z,]+\])?==([^ ]+) \\$", lock_of(image).read_text()))


def group(name: str) -> Iterator[Requirement]:
    """What a dependency group of pyproject.toml asks for, those that it includes with it."""
    groups: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["dependency-groups"]
    for entry in groups[name]:
        if isinstance(entry, str):
            yield Requirement(entry)
        else:
            yield from group(entry["include-group"])


def is_met(need: Requirement, locked: dict[str, str]) -> bool:
    """Whether a pin fulfils it, or torch will."""
    version = locked.get(canonicalize_name(need.name))
    return need.name == "torch" if version is None else need.specifier.contains(version, prereleases=True)


@each_image
def test_every_need_of_the_group_and_of_torch_is_pinned(image: str) -> None:
    locked = pins(image)
    needs = [*group(image), *(Requirement(line) for line in of_torch())]
    assert len(needs) > 20
    assert [str(need) for need in needs if not is_met(need, locked)] == []
    assert "torch" not in locked


@each_image
def test_a_pin_needs_nothing_that_is_not_pinned(image: str) -> None:
    locked = pins(image)
    looked_at = 0
    for name in locked:
        try:
            needs = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            # The image's Python may want what this one has built in.
            continue
        looked_at += 1
        wanted = [need for need in needs if need.marker is None or need.marker.evaluate({**_THERE, "extra": ""})]
        assert [f"{name} needs {need}" for need in wanted if not is_met(need, locked)] == []
    assert looked_at > 0.9 * len(locked)


@each_image
def test_every_pin_has_hashes_and_no_line_is_of_another_kind(image: str) -> None:
    text = lock_of(image).read_text()
    assert len(pins(image)) > 50
    entries = re.findall(r"(?m)^[a-z0-9-]+(?:\[[a-z,]+\])?==[^ ]+(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n", text)
    # No index, no address, no comment that names a place of the machine that wrote it.
    assert "".join(entries) == text
    assert len(entries) == len(pins(image))


def test_what_both_images_have_they_have_in_one_version() -> None:
    trainer, inference = (pins(image) for image in IMAGES)
    assert {name: (trainer[name], inference[name]) for name in trainer.keys() & inference.keys()
            if trainer[name] != inference[name]} == {}  # fmt: skip


@each_image
def test_the_bill_of_materials_lists_every_pin_with_its_hashes(image: str, tmp_path: Path) -> None:
    output = tmp_path / "sbom.json"
    command = [
        Path(sys.executable).parent / "cyclonedx-py",
        "requirements",
        "--no-validate",
        "--output-file",
        output,
        lock_of(image),
    ]
    made = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert made.returncode == 0, made.stderr
    bill = json.loads(output.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert {component["name"]: component["version"] for component in bill["components"]} == pins(image)
    assert all(component["externalReferences"][0]["hashes"] for component in bill["components"])


@pytest.mark.slow
def test_a_registry_resolves_to_the_locks() -> None:
    command = [sys.executable, "-m", "k8s.images.lock", "check"]
    checked = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=500, check=False)
    assert checked.returncode == 0, checked.stderr
