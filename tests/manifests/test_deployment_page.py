"""docs/deploy.md: its overlay renders, is valid and says what it was written to say; its commands fit the manifests."""

import re
import shutil
import subprocess
from pathlib import Path

import yaml

from service_kit.identities_file import read_identities
from tests.manifests.rendered import REPOSITORY, Workload, of_kind, render, workload_of
from tests.manifests.schemas import assert_valid
from tests.manifests.services import SERVICES

_PAGE = (REPOSITORY / "docs" / "deploy.md").read_text()


def overlay_of_the_page(folder: Path) -> Path:
    """The page's overlay, beside a copy of the others."""
    ((place, overlay),) = re.findall(r"<!-- file: (\S+) -->\n```yaml\n(.*?)```", _PAGE, flags=re.DOTALL)
    if not (folder / place).exists():
        shutil.copytree(REPOSITORY / "k8s", folder / "k8s")
        (folder / place).parent.mkdir(parents=True)
        (folder / place).write_text(overlay)
    return (folder / place).parent


def mine(folder: Path) -> list[Workload]:
    """Its workloads."""
    return [workload_of(overlay_of_the_page(folder), name) for name in SERVICES]


def test_the_operator_s_overlay_sets_the_endpoint_and_the_registry(tmp_path: Path) -> None:
    assert_valid(render(overlay_of_the_page(tmp_path)))
    for workload in mine(tmp_path):
        assert workload.environment()["PERSONAE_S3_ENDPOINT"] == "https://minio.example.com"
        # The page builds and pushes it under this very name.
        assert f"--tag {workload.server['image']} " in _PAGE
        SERVICES[workload.name].settings_of(workload)


def test_the_page_makes_every_secret_that_pods_mount_with_the_keys_that_they_read(tmp_path: Path) -> None:
    made = set(re.findall(r"create secret generic (\S+)", _PAGE))
    for workload in mine(tmp_path):
        for secret in (volume["secret"] for volume in workload.pod["volumes"] if "secret" in volume):
            # cert-manager makes those of certificates.
            assert secret["secretName"] in made | {"trainer-tls", "inference-tls"}
            for item in secret.get("items", []):
                assert f"`{item['key']}=…`" in _PAGE
        if "PERSONAE_TOKENS_FILE" in workload.environment():
            assert f"--from-file={Path(workload.environment()['PERSONAE_TOKENS_FILE']).name}=" in _PAGE


def test_the_file_of_identities_that_the_page_writes_lets_the_token_in(tmp_path: Path) -> None:
    (script,) = re.findall(r"```sh\n(openssl.*?)```", _PAGE, flags=re.DOTALL)
    (tmp_path / "here").mkdir()
    subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path / "here", check=True, timeout=30)
    token = (tmp_path / "token").read_text().strip()
    identities = read_identities(tmp_path / "identities.json")
    found = identities.of_token(token)
    assert found is not None
    assert found.name == "me"
    assert identities.of_token("another") is None


def test_the_page_names_the_addresses_and_certificates_that_the_services_have(tmp_path: Path) -> None:
    objects = render(overlay_of_the_page(tmp_path))
    for service in of_kind(objects, "Service"):
        name = f"{service['metadata']['name']}.{service['metadata']['namespace']}"
        assert f"`dns:///{name}:{service['spec']['ports'][0]['port']}`" in _PAGE
        assert f"--tls-server-name {name} " in _PAGE
        (certificate,) = (
            found["spec"]
            for found in of_kind(objects, "Certificate")
            if found["metadata"]["name"] == service["metadata"]["name"]
        )
        assert name in certificate["dnsNames"]


def test_the_gateway_s_objects_are_valid_and_lead_to_the_service(tmp_path: Path) -> None:
    (text,) = re.findall(r"<!-- validated -->\n```yaml\n(.*?)```", _PAGE, flags=re.DOTALL)
    route, policy = (dict(found) for found in yaml.safe_load_all(text))
    assert_valid([route, policy])
    (rule,) = route["spec"]["rules"]
    (backend,) = rule["backendRefs"]
    workload = workload_of(overlay_of_the_page(tmp_path), backend["name"])
    assert backend["port"] == workload.port("grpc")
    assert rule["matches"][0]["method"]["service"] == SERVICES[workload.name].grpc_name
    (target,) = policy["spec"]["targetRefs"]
    assert (target["kind"], target["name"]) == (route["kind"], route["metadata"]["name"])


def test_the_lines_for_jobs_give_them_the_operator_s_image(tmp_path: Path) -> None:
    (lines,) = re.findall(r"<!-- rendered -->\n```yaml\n(.*?)```", _PAGE, flags=re.DOTALL)
    folder = overlay_of_the_page(tmp_path)
    with (folder / "kustomization.yaml").open("a") as file:
        file.write(lines)
    workload = workload_of(folder, "trainer")
    assert workload.environment()["PERSONAE_KUBERNETES_IMAGE"] == "registry.example.com/personae/trainer:0.1.0"
    assert workload.server["image"] == "registry.example.com/personae/trainer:0.1.0"


def test_the_folders_that_the_readme_lists_are_those_that_are_there() -> None:
    (tree,) = re.findall(r"```text\n(images/.*?)```", (REPOSITORY / "k8s" / "README.md").read_text(), flags=re.DOTALL)
    listed = set(re.findall(r"([a-z-]+)/", tree))
    there = {path.name for path in (REPOSITORY / "k8s").rglob("*") if path.is_dir() and path.parent.name in _LISTED}
    assert listed == there | {"images", "base", "components", "overlays"}
    overlays = {path.name for path in (REPOSITORY / "k8s" / "overlays").iterdir()}
    assert all(name in tree for name in overlays)


_LISTED = {"base", "components"}
