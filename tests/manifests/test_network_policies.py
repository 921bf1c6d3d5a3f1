"""Policies over the rendered NetworkPolicies: everybody is covered, and what is let through is what is used."""

from typing import Any

import pytest

from tests.manifests.rendered import OVERLAYS, Object, of_kind, pods, render

overlays = pytest.mark.parametrize(
    "objects",
    [render(folder) for folder in sorted(OVERLAYS.iterdir())],
    ids=sorted(path.name for path in OVERLAYS.iterdir()),
)


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector selects."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    return all(
        rule["operator"] == "In" and labels.get(rule["key"]) in rule["values"]
        for rule in selector.get("matchExpressions", [])
    )


def rules_for(objects: list[Object], labels: dict[str, str], direction: str) -> list[Any]:
    """Everything that is let through for a pod; direction: ingress or egress."""
    return [
        rule
        for policy in of_kind(objects, "NetworkPolicy")
        if selects(policy["spec"]["podSelector"], labels)
        for rule in policy["spec"].get(direction, [])
    ]


@overlays
def test_every_pod_is_covered_in_both_directions(objects: list[Object]) -> None:
    for name, template in pods(objects).items():
        covered = {
            direction
            for policy in of_kind(objects, "NetworkPolicy")
            if selects(policy["spec"]["podSelector"], template["metadata"]["labels"])
            for direction in policy["spec"]["policyTypes"]
        }
        assert covered == {"Ingress", "Egress"}, name


@overlays
def test_every_policy_but_the_one_for_all_selects_a_pod(objects: list[Object]) -> None:
    for policy in of_kind(objects, "NetworkPolicy"):
        chosen = [
            name
            for name, template in pods(objects).items()
            if selects(policy["spec"]["podSelector"], template["metadata"]["labels"])
        ]
        assert chosen, policy["metadata"]["name"]


@overlays
def test_no_policy_lets_everybody_in(objects: list[Object]) -> None:
    for name, template in pods(objects).items():
        for rule in rules_for(objects, template["metadata"]["labels"], "ingress"):
            assert rule["from"], name
            assert rule["ports"], name


@overlays
def test_calls_reach_the_services_alone_and_health_is_nobody_s(objects: list[Object]) -> None:
    for name, template in pods(objects).items():
        ports = {
            port["port"]
            for rule in rules_for(objects, template["metadata"]["labels"], "ingress")
            for port in rule["ports"]
        }
        named = {port["name"] for container in template["spec"]["containers"] for port in container.get("ports", [])}
        if name.startswith("Deployment"):
            expected = {"grpc", "metrics"} if name != "Deployment workers" else {"metrics"}
            assert ports == expected
            # A name that no container has would let nobody in.
            assert ports <= named


@overlays
def test_the_store_s_port_is_open_outwards_and_the_addresses_of_credentials_are_not(objects: list[Object]) -> None:
    (settings, *_) = (found for found in of_kind(objects, "ConfigMap") if "PERSONAE_S3_ENDPOINT" in found["data"])
    endpoint = settings["data"]["PERSONAE_S3_ENDPOINT"]
    for name in ("trainer", "workers", "inference"):
        rules = rules_for(objects, pods(objects)[f"Deployment {name}"]["metadata"]["labels"], "egress")
        ports = {port["port"] for rule in rules for port in rule["ports"]}
        if endpoint == "http://object-store:8333":
            assert "s3" in ports
        else:
            assert endpoint.startswith("https://")
            assert 443 in ports
        blocks = [peer["ipBlock"] for rule in rules for peer in rule.get("to", []) if "ipBlock" in peer]
        assert blocks
        for block in blocks:
            assert any(text.startswith(("169.254.", "fe80:")) for text in block["except"])
