"""What keeps services up while nodes go and pods come: budgets, spread, priorities, scaling that interrupts nobody."""

import re
from typing import Any

import pytest

from tests.architecture.test_monitoring import PAGE
from tests.manifests.rendered import OVERLAYS, Object, Workload, of_kind, pods, render

production = pytest.mark.parametrize(
    "objects", [render(OVERLAYS / name) for name in ("production", "air-gapped")], ids=["production", "air-gapped"]
)
_METRICS = set(re.findall(r"^\| `(personae_\w+)` \|", PAGE, flags=re.MULTILINE))


def scaled(objects: list[Object], name: str) -> Any:
    """The ScaledObject's spec of that name."""
    (found,) = (found for found in of_kind(objects, "ScaledObject") if found["metadata"]["name"] == name)
    return found["spec"]


def test_a_budget_lets_one_pod_go_at_a_time(workload: Workload) -> None:
    (budget,) = (
        found["spec"]
        for found in of_kind(workload.beside, "PodDisruptionBudget")
        if found["spec"]["selector"]["matchLabels"].items() <= workload.labels.items()
    )
    # minAvailable would forbid to drain the node of a lone pod.
    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget


def test_pods_of_one_deployment_are_spread_over_nodes_and_zones(workload: Workload) -> None:
    constraints = workload.pod["topologySpreadConstraints"]
    assert {constraint["topologyKey"] for constraint in constraints} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }
    for constraint in constraints:
        assert constraint["labelSelector"]["matchLabels"].items() <= workload.labels.items()
        # The value of that label of the pod itself: neighbours of other Deployments do not count.
        assert constraint["matchLabelKeys"] == ["app.kubernetes.io/name"]


def test_serving_goes_before_training_and_training_pushes_nobody_out(workload: Workload) -> None:
    classes = {found["metadata"]["name"]: found for found in of_kind(workload.beside, "PriorityClass")}
    of_workload = classes[workload.pod["priorityClassName"]]
    assert classes["personae-serving"]["value"] > classes["personae-training"]["value"] > 0
    assert (of_workload["metadata"]["name"] == "personae-training") == (workload.name == "workers")
    assert classes["personae-training"]["preemptionPolicy"] == "Never"


@production
def test_what_is_scaled_exists_and_its_number_is_said_nowhere_else(objects: list[Object]) -> None:
    deployments = {found["metadata"]["name"]: found for found in of_kind(objects, "Deployment")}
    targets = {found["spec"]["scaleTargetRef"]["name"] for found in of_kind(objects, "ScaledObject")}
    assert targets == {"workers", "inference"}
    for name in targets:
        assert "replicas" not in deployments[name]["spec"]
    assert deployments["trainer"]["spec"]["replicas"] >= 2
    assert scaled(objects, "inference")["minReplicaCount"] >= 2


@production
def test_what_is_asked_of_prometheus_is_what_the_services_say(objects: list[Object]) -> None:
    namespace = of_kind(objects, "Namespace")[0]["metadata"]["name"]
    for found in of_kind(objects, "ScaledObject"):
        for trigger in found["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            names = set(re.findall(r"personae_\w+", query))
            assert names
            assert names <= _METRICS
            # Another installation's work in the same Prometheus is none of ours.
            assert query.count(f'{{namespace="{namespace}"}}') == len(re.findall(r"personae_\w+", query))


@production
def test_scaling_down_takes_no_worker_away_while_anything_waits_or_runs(objects: list[Object]) -> None:
    workers = scaled(objects, "workers")
    behavior = workers["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"] == {"selectPolicy": "Disabled"}
    (trigger,) = workers["triggers"]
    # What runs counts as well: a queue that is empty is no sign of rest.
    assert "personae_trainer_trainings_running" in trigger["metadata"]["query"]
    assert "personae_trainer_trainings_waiting" in trigger["metadata"]["query"]
    assert trigger["metadata"]["activationThreshold"] == "0"
    assert (workers["minReplicaCount"], trigger["metadata"]["threshold"]) == (0, "1")
    assert workers["cooldownPeriod"] >= 600


@production
def test_a_silent_prometheus_takes_nobody_away(objects: list[Object]) -> None:
    for found in of_kind(objects, "ScaledObject"):
        assert found["spec"]["fallback"]["behavior"] == "currentReplicasIfHigher"


@production
def test_every_pod_that_has_metrics_is_scraped(objects: list[Object]) -> None:
    (monitor,) = of_kind(objects, "PodMonitor")
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "interval": "15s"}]
    selector = monitor["spec"]["selector"]["matchLabels"]
    scraped = {name for name, pod in pods(objects).items() if selector.items() <= pod["metadata"]["labels"].items()}
    assert scraped >= {"Deployment trainer", "Deployment workers", "Deployment inference"}
