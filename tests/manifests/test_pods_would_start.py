"""The rendered environment makes settings that a service starts with, and ports, probes and Services agree with them.

Which variables exist is asked of the services' own settings, never written down here.
"""

import re
from pathlib import Path

from tests.manifests.rendered import Workload, of_kind
from tests.manifests.services import SERVICES

_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def test_the_service_reads_every_variable_of_its_pod(workload: Workload) -> None:
    # Raises, and names the variable, where one is unknown or malformed.
    SERVICES[workload.name].settings_of(workload)
    others = {name for name in workload.environment() if not name.startswith("PERSONAE_")}
    # service_kit/traces.py: the one of the SDK that decides whether anything is sent.
    assert others <= {"OTEL_EXPORTER_OTLP_ENDPOINT"}


def test_the_s3_keys_are_files_of_the_operator_s_secret(workload: Workload) -> None:
    paths = SERVICES[workload.name].settings_of(workload).s3_keys
    assert [Path(path).name for path in paths] == ["access_key", "secret_key"]
    # In the overlay for development it is generated, with a hash in its name.
    assert all(re.fullmatch(r"personae-s3(-\w{10})?", workload.secret_of(path)) for path in paths)


def test_other_services_of_the_namespace_add_no_variables(workload: Workload) -> None:
    assert workload.pod["enableServiceLinks"] is False


def test_the_service_listens_beyond_its_pod_on_the_ports_that_it_has_everywhere(workload: Workload) -> None:
    service = SERVICES[workload.name]
    settings, defaults = service.settings_of(workload), service.read({})
    for name, address, default in (
        ("grpc", settings.address, defaults.address),
        ("health", settings.health_address, defaults.health_address),
        ("metrics", settings.metrics_address, defaults.metrics_address),
    ):
        if (workload.name, name) == ("workers", "grpc"):
            # Callers have no business there, so it needs neither TLS nor tokens.
            assert address == default
        else:
            assert address == f"0.0.0.0:{workload.port(name)}"
            assert default == f"127.0.0.1:{workload.port(name)}"


def test_the_service_trains_nothing_and_each_worker_s_pod_one_training(workload: Workload) -> None:
    if workload.name != "inference":
        assert workload.environment()["PERSONAE_TRAINER_WORKERS"] == {"trainer": "0", "workers": "1"}[workload.name]


def test_all_three_probes_ask_the_plaintext_health_port(workload: Workload) -> None:
    for name in _PROBES:
        assert workload.server[name]["grpc"]["port"] == workload.port("health")


def test_readiness_is_that_of_the_service_and_life_that_of_the_server(workload: Workload) -> None:
    asked = {name: workload.server[name]["grpc"].get("service", "") for name in _PROBES}
    assert asked == {
        "startupProbe": "",
        "readinessProbe": SERVICES[workload.name].grpc_name,
        "livenessProbe": "",
    }


def test_a_selector_selects_the_pods_of_one_deployment(workload: Workload) -> None:
    selectors = [workload.deployment["spec"]["selector"]["matchLabels"]]
    selectors += [
        found["spec"]["selector"]
        for found in of_kind(workload.beside, "Service")
        if found["metadata"]["name"] == workload.name
    ]
    selectors += [
        found["spec"]["selector"]["matchLabels"]
        for found in of_kind(workload.beside, "PodDisruptionBudget")
        if found["metadata"]["name"] == workload.name
    ]
    assert len(selectors) == (2 if workload.name == "workers" else 3)
    neighbours = [found for found in of_kind(workload.beside, "Deployment") if found is not workload.deployment]
    for selector in selectors:
        assert selector.items() <= workload.labels.items()
        for neighbour in neighbours:
            assert not selector.items() <= neighbour["spec"]["template"]["metadata"]["labels"].items()


def test_a_headless_service_offers_the_grpc_port_of_its_pods(workload: Workload) -> None:
    if workload.name == "workers":
        assert workload.name not in {found["metadata"]["name"] for found in of_kind(workload.beside, "Service")}
        return
    (service,) = (found for found in of_kind(workload.beside, "Service") if found["metadata"]["name"] == workload.name)
    assert service["spec"]["clusterIP"] == "None"
    # Clients of a headless Service connect to the pods themselves: its port is not translated.
    assert service["spec"]["ports"] == [{"name": "grpc", "port": workload.port("grpc"), "targetPort": "grpc"}]
