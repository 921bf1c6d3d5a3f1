"""What the inference service counts beside its calls: images, the queue, the engine's steps, where adapters lie.

Its one rule: the engine does nothing for it. What others count for themselves is read when somebody asks; only what
callers wait for is noted as it happens.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inference_service.adapter_cache import AdapterCache
from inference_service.adapters import Adapters
from inference_service.admission import Admission
from inference_service.engine import Engine
from inference_service.host_adapters import HostAdapters

_WAIT_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


@runtime_checkable
class Counting(Protocol):
    """An engine that counts its steps: see denoising.step_loop.EngineCounters."""

    @property
    def counters(self) -> Any: ...


class InferenceMetrics:
    """engines: by the name of their base model."""

    def __init__(
        self,
        registry: CollectorRegistry,
        admission: Admission,
        engines: Mapping[str, Engine],
        adapters: Adapters,
        host: HostAdapters,
        cache: AdapterCache,
    ) -> None:
        self.images = Counter(
            "personae_inference_images",
            "Images sent, `made`, or `filtered` where a checker refused them.",
            ("outcome",),
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "personae_inference_queue_seconds",
            "Seconds from Accepted to the first step, of generations that were finished.",
            buckets=_WAIT_SECONDS,
            registry=registry,
        )
        self.generation_seconds = Histogram(
            "personae_inference_generation_seconds",
            "Seconds from the first step to the last image, of generations that were finished.",
            buckets=_WAIT_SECONDS,
            registry=registry,
        )
        registry.register(_Admission(admission))
        registry.register(_Engines(engines))
        registry.register(_Residency(engines, adapters, host, cache))


class _Admission(Collector):
    """How much waits, and how much may."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def collect(self) -> Iterator[Metric]:
        admission = self._admission
        yield GaugeMetricFamily(
            "personae_inference_requests_open", "Generate calls that hold a place.", admission.requests_open
        )
        yield GaugeMetricFamily(
            "personae_inference_requests_limit", "Most that may be open at once.", admission.limits.requests
        )
        yield GaugeMetricFamily(
            "personae_inference_cost_waiting", "Passes admitted and not done.", admission.cost_waiting
        )
        yield GaugeMetricFamily(
            "personae_inference_cost_limit", "Most that may be admitted at once.", admission.limits.cost
        )
        yield GaugeMetricFamily(
            "personae_inference_images_waiting", "Images admitted and not finished.", admission.images_waiting
        )
        yield GaugeMetricFamily(
            "personae_inference_passes_per_second",
            "Passes done in a second while there is work, over the last minute; 0 where that is not known.",
            admission.passes_per_s or 0.0,
        )


class _Engines(Collector):
    """What went through the denoisers."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._counting = {name: engine for name, engine in engines.items() if isinstance(engine, Counting)}

    def collect(self) -> Iterator[Metric]:
        labels = ("base_model",)
        steps = CounterMetricFamily("personae_inference_steps", "Forward passes of the denoiser.", labels=labels)
        rows = CounterMetricFamily(
            "personae_inference_step_rows", "Images that went through them, summed over the passes.", labels=labels
        )
        worn = CounterMetricFamily(
            "personae_inference_step_adapters", "Different adapters among those, summed likewise.", labels=labels
        )
        busy = CounterMetricFamily(
            "personae_inference_step_seconds", "Seconds that the step loop spent on steps.", labels=labels
        )
        for name, engine in self._counting.items():
            counters = engine.counters
            steps.add_metric([name], counters.forwards)
            rows.add_metric([name], counters.images)
            worn.add_metric([name], counters.adapters)
            busy.add_metric([name], counters.seconds)
        yield from (steps, rows, worn, busy)


class _Residency(Collector):
    """Where adapters lie, and where those that were wanted were found."""

    def __init__(
        self, engines: Mapping[str, Engine], adapters: Adapters, host: HostAdapters, cache: AdapterCache
    ) -> None:
        self._engines = engines
        self._adapters = adapters
        self._host = host
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        fetches = CounterMetricFamily(
            "personae_inference_adapter_fetches",
            "Adapters that requests wanted, by the nearest place that had them: slot, host, disk or bucket.",
            labels=("place",),
        )
        found, reads = self._adapters.found, self._cache.reads
        for place, count in (
            ("slot", found["slot"]),
            ("host", found["host"]),
            ("disk", reads["disk"]),
            ("bucket", reads["bucket"]),
        ):
            fetches.add_metric([place], count)
        count, host_bytes = self._host.held
        resident = GaugeMetricFamily(
            "personae_inference_adapters_resident", "Adapters in slots and in host memory.", labels=("place",)
        )
        resident.add_metric(["slot"], sum(len(engine.in_slots()) for engine in self._engines.values()))
        resident.add_metric(["host"], count)
        held = GaugeMetricFamily(
            "personae_inference_adapter_bytes", "Bytes of adapters in host memory and on the disk.", labels=("place",)
        )
        held.add_metric(["host"], host_bytes)
        held.add_metric(["disk"], self._cache.known_bytes)
        limits = GaugeMetricFamily(
            "personae_inference_adapter_bytes_limit", "Most that may be kept there.", labels=("place",)
        )
        limits.add_metric(["host"], self._host.max_bytes)
        limits.add_metric(["disk"], self._cache.max_bytes)
        pinned = GaugeMetricFamily(
            "personae_inference_adapter_pinned_bytes",
            "Bytes in host memory that callers pinned.",
            self._host.pinned_bytes,
        )
        yield from (fetches, resident, held, limits, pinned)
