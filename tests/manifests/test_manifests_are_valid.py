"""Every kustomization renders, and every object fits its schemas (schemas.py), without unknown fields.

The schemas are inside a package and this folder: nothing is asked of a network.
"""

import tomllib
from pathlib import Path

import kubernetes_validate
import pytest

from tests.manifests.rendered import (
    FILE,
    OVERLAYS,
    REPOSITORY,
    Object,
    containers,
    declared,
    kustomizations,
    of_kind,
    parts,
    pods,
    render,
)
from tests.manifests.schemas import VERSIONS, assert_valid
from tests.manifests.services import SERVICES

folders = pytest.mark.parametrize("folder", kustomizations(), ids=lambda folder: str(folder.relative_to(REPOSITORY)))
OURS = {"personae/trainer", "personae/inference"}


def test_the_three_newest_versions_of_kubernetes_that_the_package_knows_are_asked() -> None:
    newest = kubernetes_validate.latest_version()
    assert VERSIONS[-1] == newest
    minors = [int(version.split(".")[1]) for version in VERSIONS]
    assert minors == [minors[-1] - 2, minors[-1] - 1, minors[-1]]


@pytest.mark.parametrize(
    "flaw",
    [
        {"kind": "Service", "apiVersion": "v1", "spec": {"port": [{"port": 1}]}},
        {
            "kind": "ScaledObject",
            "apiVersion": "keda.sh/v1alpha1",
            "spec": {"scaleTargetRef": {"nam": "x"}, "triggers": []},
        },
        {"kind": "Certificate", "apiVersion": "cert-manager.io/v1", "spec": {"secretName": "x", "issuer": "x"}},
        {"kind": "LocalQueue", "apiVersion": "kueue.x-k8s.io/v1beta2", "spec": {"clusterQueues": "x"}},
        {"kind": "Nothing", "apiVersion": "example.com/v1", "spec": {}},
    ],
    ids=lambda flaw: flaw["kind"],
)
def test_an_unknown_field_or_kind_is_found(flaw: Object) -> None:
    with pytest.raises((AssertionError, kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError)):
        assert_valid([{**flaw, "metadata": {"name": "x"}}])


@folders
def test_every_object_fits_the_schemas_of_its_kind(folder: Path) -> None:
    assert_valid(render(folder))


@folders
def test_a_part_of_a_kustomization_is_included_by_it(folder: Path) -> None:
    assert {part.name for part in parts(folder)} <= set(declared(folder)["resources"])


def test_every_file_is_used_by_its_kustomization() -> None:
    for place in (path.parent for path in (REPOSITORY / "k8s").rglob(FILE)):
        text = (place / FILE).read_text().replace("=", " ")
        beside = [path.name for path in place.iterdir() if path.is_file() and path.name not in (FILE, *text.split())]
        assert beside == [], place


@folders
def test_the_services_the_workers_and_what_they_need_are_there(folder: Path) -> None:
    objects = render(folder)
    for kind in ("Deployment", "ServiceAccount", "PodDisruptionBudget"):
        assert {found["metadata"]["name"] for found in of_kind(objects, kind)} == set(SERVICES)
    assert {found["metadata"]["name"] for found in of_kind(objects, "Service")} >= {"trainer", "inference"}


@folders
def test_no_secret_is_in_the_manifests_but_that_of_the_store_for_development(folder: Path) -> None:
    secrets = [found["metadata"]["name"] for found in of_kind(render(folder), "Secret")]
    assert [name.rsplit("-", 1)[0] for name in secrets] == (["personae-s3"] if folder == OVERLAYS / "dev" else [])
    for settings in of_kind(render(folder), "ConfigMap"):
        assert [name for name in settings["data"] if name.endswith(("_KEY", "_TOKEN"))] == []


@folders
def test_every_image_has_a_version_ours_that_of_the_project_and_none_is_a_dead_one(folder: Path) -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    for template in pods(render(folder)).values():
        for container in containers(template):
            name, _, tag = container["image"].partition("@")[0].rpartition(":")
            assert tag
            assert tag != "latest"
            assert not name.endswith("minio/minio")
            # An overlay may put a registry before it.
            assert "personae/" not in name or (name[name.index("personae/") :] in OURS and tag == version)


@folders
def test_everything_of_an_overlay_is_in_its_namespace_which_lets_in_restricted_pods_only(folder: Path) -> None:
    if "namespace" not in declared(folder):
        pytest.skip("a base, for overlays")
    namespace = declared(folder)["namespace"]
    objects = render(folder)
    assert {found["metadata"].get("namespace", namespace) for found in objects} == {namespace}
    (made,) = of_kind(objects, "Namespace")
    assert made["metadata"]["name"] == namespace
    assert made["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
