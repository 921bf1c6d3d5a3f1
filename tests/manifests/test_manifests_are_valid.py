"""Every kustomization renders, and every object fits the newest Kubernetes schema at hand, without unknown fields.

The schemas are inside the `kubernetes-validate` package: nothing is asked of a network.
"""

import tomllib
from pathlib import Path

import kubernetes_validate
import pytest

from tests.manifests.rendered import FILE, REPOSITORY, Object, declared, kustomizations, of_kind, parts, render

folders = pytest.mark.parametrize("folder", kustomizations(), ids=lambda folder: str(folder.relative_to(REPOSITORY)))


def assert_valid(objects: list[Object]) -> None:
    """Every object fits its schema, strictly."""
    for found in objects:
        # A kind without a schema raises as well: then its schema has to be brought along.
        kubernetes_validate.validate(found, kubernetes_validate.latest_version(), strict=True)


@folders
def test_every_object_fits_the_schema_of_its_kind(folder: Path) -> None:
    assert_valid(render(folder))


@folders
def test_a_part_of_a_kustomization_is_included_by_it(folder: Path) -> None:
    assert {part.name for part in parts(folder)} <= set(declared(folder)["resources"])


@folders
def test_every_yaml_file_is_used_by_its_kustomization(folder: Path) -> None:
    for place in (folder, *parts(folder)):
        text = (place / FILE).read_text()
        assert [
            path.name for path in place.iterdir() if path.is_file() and path.name not in (FILE, *text.split())
        ] == []


@folders
def test_both_services_and_what_they_need_are_there(folder: Path) -> None:
    objects = render(folder)
    for kind in ("Deployment", "Service", "ServiceAccount"):
        assert {found["metadata"]["name"] for found in of_kind(objects, kind)} == {"trainer", "inference"}
    assert len(of_kind(objects, "ConfigMap")) == 1


@folders
def test_no_secret_is_in_the_manifests(folder: Path) -> None:
    assert of_kind(render(folder), "Secret") == []
    (settings,) = of_kind(render(folder), "ConfigMap")
    assert [name for name in settings["data"] if name.endswith("_KEY")] == []


@folders
def test_the_images_are_our_own_at_the_version_of_the_project(folder: Path) -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    for deployment in of_kind(render(folder), "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        images = [container["image"] for container in (*pod["containers"], *pod.get("initContainers", []))]
        # An overlay may put a registry before it.
        assert all(image.endswith(f"personae/{deployment['metadata']['name']}:{version}") for image in images)
