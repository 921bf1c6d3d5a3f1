"""The overlay that docs/deploy.md tells an operator to write renders, is valid, and says what it was written to say."""

import re
import shutil
from pathlib import Path

from tests.manifests.rendered import REPOSITORY, Object, of_kind, render
from tests.manifests.test_manifests_are_valid import assert_valid

_PAGE = (REPOSITORY / "docs" / "deploy.md").read_text()
_TREE = (REPOSITORY / "k8s" / "README.md").read_text()


def rendered_overlay(folder: Path) -> list[Object]:
    """The page's overlay, beside a copy of the base."""
    (overlay,) = re.findall(r"```yaml\n(.*?)```", _PAGE, flags=re.DOTALL)
    (place,) = re.findall(r"`(k8s/\S+/kustomization.yaml)`", _PAGE)
    shutil.copytree(REPOSITORY / "k8s" / "base", folder / "k8s" / "base")
    (folder / place).parent.mkdir(parents=True)
    (folder / place).write_text(overlay)
    return render((folder / place).parent)


def test_the_operator_s_overlay_sets_the_endpoint_the_registry_and_the_namespace(tmp_path: Path) -> None:
    objects = rendered_overlay(tmp_path)
    assert_valid(objects)
    assert {found["metadata"]["namespace"] for found in objects} == {"personae"}
    (settings,) = of_kind(objects, "ConfigMap")
    assert settings["data"]["PERSONAE_S3_ENDPOINT"] == "https://minio.example.com"
    for deployment in of_kind(objects, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        # The page builds and pushes it under this very name.
        assert f"--tag {container['image']} " in _PAGE
        assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]


def test_the_page_makes_the_secret_with_the_keys_that_the_pods_read(tmp_path: Path) -> None:
    for deployment in of_kind(rendered_overlay(tmp_path), "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        asked = [variable["valueFrom"]["secretKeyRef"] for variable in container["env"] if "valueFrom" in variable]
        assert len(asked) == 2
        for secret in asked:
            assert f"create secret generic {secret['name']} --from-env-file=../s3.env" in _PAGE
            assert f"`{secret['key']}=…`" in _PAGE


def test_the_page_names_the_addresses_that_the_services_have(tmp_path: Path) -> None:
    for service in of_kind(rendered_overlay(tmp_path), "Service"):
        name = f"{service['metadata']['name']}.{service['metadata']['namespace']}"
        assert f"`dns:///{name}:{service['spec']['ports'][0]['port']}`" in _PAGE


def test_every_file_that_the_folder_s_page_lists_is_there() -> None:
    (tree,) = re.findall(r"```text\n(images/.*?)```", _TREE, flags=re.DOTALL)
    listed = set(re.findall(r"[a-z.]+\.(?:yaml|env|Dockerfile)", tree))
    there = {path.name for place in ("images", "base") for path in (REPOSITORY / "k8s" / place).iterdir()}
    assert listed <= there
    assert there - listed == {"trainer", "inference"}
