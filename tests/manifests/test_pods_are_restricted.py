"""Policies over every rendered pod, ours or not: Kubernetes' restricted profile, probes, requests, room to write.

The profile is the one of https://kubernetes.io/docs/concepts/security/pod-security-standards/.
"""

import pytest

from tests.manifests.rendered import (
    REPOSITORY,
    Object,
    Workload,
    containers,
    kustomizations,
    of_kind,
    pods,
    render,
)
from tests.manifests.services import SERVICES

_VOLUME_KINDS = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
_MOUNTED = {"configMap": "ConfigMap", "persistentVolumeClaim": "PersistentVolumeClaim"}
_UNITS = {"Mi": 1024**2, "Gi": 1024**3}
_TEMPLATES = {
    f"{folder.relative_to(REPOSITORY)} {name}": (template, render(folder))
    for folder in kustomizations()
    for name, template in pods(render(folder)).items()
}
each_pod = pytest.mark.parametrize(("template", "beside"), _TEMPLATES.values(), ids=_TEMPLATES)


def size_bytes(quantity: str) -> int:
    """`6Gi` in bytes."""
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]


def assert_restricted(template: Object) -> None:
    """A pod that the restricted profile admits, and whose file system is read-only besides."""
    pod = template["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"].get("runAsUser") != 0
    assert pod["securityContext"]["seccompProfile"]["type"] in {"RuntimeDefault", "Localhost"}
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= _VOLUME_KINDS
    for container in containers(template):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not {"privileged", "runAsUser", "runAsNonRoot", "seccompProfile", "procMount"} & context.keys()
        assert all("hostPort" not in port for port in container.get("ports", []))
        assert context["readOnlyRootFilesystem"] is True
        assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]


@each_pod
def test_the_pod_fits_the_restricted_profile_on_a_read_only_file_system(template: Object, beside: list[Object]) -> None:
    assert_restricted(template)


@each_pod
def test_every_volume_is_mounted_limited_and_there(template: Object, beside: list[Object]) -> None:
    volumes = template["spec"]["volumes"]
    mounted = {mount["name"] for container in containers(template) for mount in container["volumeMounts"]}
    claimed = {
        claim["metadata"]["name"]
        for found in of_kind(beside, "StatefulSet")
        if found["spec"]["template"] == template
        for claim in found["spec"]["volumeClaimTemplates"]
    }
    assert mounted == {volume["name"] for volume in volumes} | claimed
    assert all("sizeLimit" in volume["emptyDir"] for volume in volumes if "emptyDir" in volume)
    there = {kind: {found["metadata"]["name"] for found in of_kind(beside, kind)} for kind in _MOUNTED.values()}
    for volume in volumes:
        for kind in _MOUNTED.keys() & volume.keys():
            name = volume[kind]["claimName" if kind == "persistentVolumeClaim" else "name"]
            assert name in there[_MOUNTED[kind]]


@each_pod
def test_a_secret_is_a_file_that_its_owner_and_group_may_read(template: Object, beside: list[Object]) -> None:
    assert "fsGroup" in template["spec"]["securityContext"]
    for volume in template["spec"]["volumes"]:
        assert volume.get("secret", {"defaultMode": 0o440})["defaultMode"] == 0o440
    for container in containers(template):
        assert all("valueFrom" not in variable for variable in container.get("env", []))
        assert all("secretRef" not in source for source in container.get("envFrom", []))


@each_pod
def test_nothing_in_the_pod_speaks_to_the_kubernetes_api(template: Object, beside: list[Object]) -> None:
    assert template["spec"]["automountServiceAccountToken"] is False
    assert not [found for found in beside if found["kind"].endswith(("Role", "Binding"))]


@each_pod
def test_every_container_asks_for_cpu_and_memory_and_has_a_limit_of_memory(
    template: Object, beside: list[Object]
) -> None:
    for container in containers(template):
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert size_bytes(container["resources"]["limits"]["memory"]) >= size_bytes(
            container["resources"]["requests"]["memory"]
        )


@each_pod
def test_what_runs_on_is_probed_and_what_ends_is_not(template: Object, beside: list[Object]) -> None:
    ends = template["spec"].get("restartPolicy", "Always") != "Always"
    for container in template["spec"]["containers"]:
        probes = {"startupProbe", "readinessProbe", "livenessProbe"} & container.keys()
        assert len(probes) == (0 if ends else 3)


def test_pods_that_compute_have_one_gpu_where_the_overlay_has_gpus(workload: Workload) -> None:
    resources = workload.server["resources"]
    has = "nvidia.com/gpu" in resources["limits"]
    assert has == (workload.has_gpus and workload.name != "trainer")
    if has:
        assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == 1
        assert "nvidia.com/gpu" in [toleration["key"] for toleration in workload.pod["tolerations"]]
        # Beyond those in use it would wait for the one that the old pod holds.
        assert workload.deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


def test_shared_memory_is_wider_than_a_container_s_own_where_torch_runs(workload: Workload) -> None:
    mounts = {mount["mountPath"]: mount["name"] for mount in workload.server["volumeMounts"]}
    if workload.name != "trainer":
        (volume,) = (volume for volume in workload.pod["volumes"] if volume["name"] == mounts["/dev/shm"])
        assert volume["emptyDir"]["medium"] == "Memory"
        assert size_bytes(volume["emptyDir"]["sizeLimit"]) > 64 * 1024**2


def test_the_grace_is_above_what_comes_before_the_stop_and_the_drain(workload: Workload) -> None:
    drain_s = SERVICES[workload.name].settings_of(workload).drain_s
    before_s = workload.server["lifecycle"]["preStop"]["sleep"]["seconds"]
    # And ten seconds for traces that have not been sent (service_kit/traces.py).
    assert workload.pod["terminationGracePeriodSeconds"] >= before_s + drain_s + 10


def test_a_pod_is_asked_no_more_once_it_is_told_to_stop(workload: Workload) -> None:
    # Until the last client's resolver has noticed: Kubernetes' own part takes a second or two.
    assert workload.server["lifecycle"]["preStop"]["sleep"]["seconds"] >= 5


def test_a_start_may_take_minutes_and_outlasts_the_patience_with_the_store(workload: Workload) -> None:
    probe = workload.server["startupProbe"]
    allowed_s = probe["periodSeconds"] * probe["failureThreshold"]
    assert allowed_s >= 300
    assert SERVICES[workload.name].settings_of(workload).s3_patience_s < allowed_s
    assert allowed_s < workload.deployment["spec"]["progressDeadlineSeconds"]


def test_an_adapter_cache_fits_its_volume(workload: Workload) -> None:
    cache = SERVICES[workload.name].settings_of(workload).cache
    mounts = {mount["mountPath"]: mount["name"] for mount in workload.server["volumeMounts"]}
    limits = {volume["name"]: volume.get("emptyDir", {}).get("sizeLimit") for volume in workload.pod["volumes"]}
    assert cache is None or cache.size_bytes < size_bytes(limits[mounts[str(cache.folder)]])
