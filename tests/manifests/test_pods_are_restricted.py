"""Policies over every rendered pod: Kubernetes' restricted profile, a GPU, room to write, time to start and to stop.

The profile is the one of https://kubernetes.io/docs/concepts/security/pod-security-standards/.
"""

from tests.manifests.rendered import Object, Workload, of_kind
from tests.manifests.services import SERVICES

_VOLUME_KINDS = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
_UNITS = {"Mi": 1024**2, "Gi": 1024**3}


def containers(workload: Workload) -> list[Object]:
    return [*workload.pod["containers"], *workload.pod.get("initContainers", [])]


def size_bytes(quantity: str) -> int:
    """`6Gi` in bytes."""
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]


def test_the_pod_fits_the_restricted_profile(workload: Workload) -> None:
    pod = workload.pod
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"].get("runAsUser") != 0
    assert pod["securityContext"]["seccompProfile"]["type"] in {"RuntimeDefault", "Localhost"}
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= _VOLUME_KINDS
    for container in containers(workload):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not {"privileged", "runAsUser", "runAsNonRoot", "seccompProfile", "procMount"} & context.keys()
        assert all("hostPort" not in port for port in container.get("ports", []))


def test_the_root_file_system_is_read_only_and_tmp_is_not(workload: Workload) -> None:
    for container in containers(workload):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]


def test_every_volume_is_mounted_and_limited(workload: Workload) -> None:
    mounted = {mount["name"] for container in containers(workload) for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in workload.pod["volumes"]}
    assert all("sizeLimit" in volume["emptyDir"] for volume in workload.pod["volumes"] if "emptyDir" in volume)


def test_nothing_in_the_pod_speaks_to_the_kubernetes_api(workload: Workload) -> None:
    assert workload.pod["automountServiceAccountToken"] is False
    (account,) = (
        found
        for found in of_kind(workload.beside, "ServiceAccount")
        if found["metadata"]["name"] == workload.pod["serviceAccountName"]
    )
    assert account["automountServiceAccountToken"] is False
    assert not [found for found in workload.beside if found["kind"].endswith("Binding")]


def test_a_pod_has_one_gpu_and_asks_for_cpu_and_memory(workload: Workload) -> None:
    resources = workload.server["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == 1
    assert {"cpu", "memory"} <= resources["requests"].keys()
    assert "nvidia.com/gpu" in [toleration["key"] for toleration in workload.pod["tolerations"]]


def test_a_rollout_asks_for_no_gpu_beyond_those_in_use(workload: Workload) -> None:
    assert workload.deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


def test_the_grace_is_above_the_drain(workload: Workload) -> None:
    drain_s = SERVICES[workload.name].settings_of(workload).drain_s
    assert workload.pod["terminationGracePeriodSeconds"] > drain_s


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
