"""The operations page, the alerts and the dashboard agree with the metrics that the services have, and with each other.

PromQL is not parsed here, only taken apart: every name and every label in it must exist, and its brackets must close.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from inference_service.adapter_cache import AdapterCache
from inference_service.adapter_uses import AdapterUses
from inference_service.adapters import Adapters
from inference_service.admission import Admission, Limits
from inference_service.host_adapters import HostAdapters
from inference_service.manifests import Manifests
from inference_service.metrics import InferenceMetrics
from service_kit.memory_store import MemoryStore
from service_kit.metrics import ServiceMetrics
from trainer_service.metrics import TrainerMetrics

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "operations.md").read_text()
ALERTS = yaml.safe_load((DOCS / "monitoring" / "alerts.yaml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((DOCS / "monitoring" / "dashboard.json").read_text())
# What callers choose has no bound; `reason` and `method` are constants of our code and of the contract.
UNBOUNDED = {"project", "adapter", "training", "dataset", "generation", "worker", "caller"}
OF_THE_SCRAPE = {"instance", "job"}
_WORDS = {"absent", "and", "histogram_quantile", "increase", "label_values", "max", "rate", "sum", "time"}


class _Engine:
    """An engine that has done one step."""

    class counters:
        forwards, images, adapters, seconds = 1, 1, 0, 0.5

    def in_slots(self) -> frozenset[str]:
        return frozenset()


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Metric]]:
    """All metrics of both services, by name."""
    registry, store = CollectorRegistry(), MemoryStore()
    service = ServiceMetrics("any")
    cache = AdapterCache(store, tmp_path_factory.mktemp("cache"), 1)
    host, manifests = HostAdapters(cache, 1, lambda: 0.0), Manifests(store, lambda: 0.0)
    adapters = Adapters(manifests, host, AdapterUses(lambda: None))  # type: ignore[arg-type, return-value]
    admission = Admission(Limits(1, 1, 1.0), lambda: 0.0)
    engines: Any = {"toon-64": _Engine()}
    inference = InferenceMetrics(registry, admission, engines, adapters, host, cache)
    for metrics in (service, TrainerMetrics(registry), inference):
        for metric in vars(metrics).values():
            if isinstance(metric, MetricWrapperBase) and metric._labelnames:
                # A child, since a metric without any says nothing of its labels.
                metric.labels(*("x" for _ in metric._labelnames))
    yield {family.name: family for found in (service.registry, registry) for family in found.collect()}
    manifests.close()
    host.close()


@pytest.fixture(scope="module")
def labels(families: dict[str, Metric]) -> dict[str, set[str]]:
    """Each sample's labels, by its name."""
    found: dict[str, set[str]] = {}
    for family in families.values():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def queries() -> dict[str, str]:
    """Every expression, by where it stands."""
    found = {rule["alert"]: rule["expr"] for rule in RULES}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            found[variable["name"]] = variable["query"]["query"]
    return found


QUERIES = queries()


@pytest.mark.parametrize("where", QUERIES)
def test_a_query_uses_only_what_there_is(labels: dict[str, set[str]], where: str) -> None:
    query = QUERIES[where]
    for opening, closing in ("()", "{}", "[]"):
        assert query.count(opening) == query.count(closing)
    grouped = {label.strip() for names in re.findall(r"\bby \(([^)]*)\)", query) for label in names.split(",")}
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]|\bby \([^)]*\)', "", query)
    selected = {name: re.findall(r"(\w+)\s*[=!]", inside) for name, inside in re.findall(r"(\w+)\{([^}]*)\}", bare)}
    names = set(re.findall(r"[a-zA-Z_]\w*", re.sub(r"\{[^}]*\}", "", bare))) - _WORDS
    if where == "instance":
        names -= OF_THE_SCRAPE
    assert names
    assert names - labels.keys() == set()
    for name, chosen in selected.items():
        assert set(chosen) <= labels[name] | OF_THE_SCRAPE
    assert grouped <= set().union(*(labels[name] for name in names)) | OF_THE_SCRAPE


def test_every_metric_is_listed_with_its_labels_and_no_other(families: dict[str, Metric]) -> None:
    listed = dict(re.findall(r"^\| `(personae_\w+)` \|([^|]*)\|", PAGE, flags=re.MULTILINE))
    exposed = {}
    for family in families.values():
        if family.name.startswith("personae_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found = {label for sample in family.samples for label in sample.labels} - {"le"}
            exposed[name] = found
    assert {name: set(re.findall(r"`(\w+)`", text)) for name, text in listed.items()} == exposed


def test_names_follow_the_conventions_and_labels_are_bounded(families: dict[str, Metric]) -> None:
    for family in families.values():
        assert family.documentation
        if family.name.startswith("personae_"):
            assert not family.name.endswith(("_ms", "_count", "_total"))
            assert not UNBOUNDED & {label for sample in family.samples for label in sample.labels}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"
    section = re.search(rf"^### {rule['alert']}\n(.*?)(?=^##|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert section, "the page has no section of this name"
    for part in ("**Means:**", "**Look at:**", "**Do:**"):
        assert part in section[1]


def test_the_page_has_no_section_for_an_alert_that_is_gone() -> None:
    assert set(re.findall(r"^### (Personae\w+)$", PAGE, flags=re.MULTILINE)) == {rule["alert"] for rule in RULES}


def test_every_panel_has_its_place_and_asks_the_chosen_source() -> None:
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
    for panel in DASHBOARD["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["targets"]
