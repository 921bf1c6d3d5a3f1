"""What `personae up` shows while it runs: each process, its state and address, what it does, and where its log is.

States are the services' own, by their health ports; what they do is what their metrics ports say.
"""

import re
import time
import urllib.request
from collections.abc import Mapping

from rich.console import Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from personae.cli.health import SERVICES, health
from personae.cli.local_stack import Running

_LOOK_EVERY_S = 2.0
_ANSWER_S = 1.0
_SAMPLE = re.compile(r"^(personae_\w+) ([-+.\deE]+)$", re.MULTILINE)


class StatusPanel:
    """Looks now and then; what it saw last is drawn in between."""

    def __init__(self, stack: Running) -> None:
        self._stack = stack
        self._begun = time.monotonic()
        self._looked = 0.0
        self._told: dict[str, tuple[str, str]] = {}

    def drawn(self) -> Panel:
        """The panel as of now."""
        now = time.monotonic()
        if not self._told or now - self._looked >= _LOOK_EVERY_S:
            self._told = {name: self._look_at(name) for name in SERVICES}
            self._looked = time.monotonic()
        table = Table("", "state", "address", "doing", box=None, padding=(0, 2, 0, 0))
        table.add_row(
            "store", "[green]running[/green]" if "store" in self._stack.logs else "yours", self._stack.store, ""
        )
        for name, address in (("trainer", self._stack.trainer), ("inference", self._stack.inference)):
            state, doing = self._told[name]
            colour = "green" if state == "serving" else "red"
            table.add_row(name, f"[{colour}]{state}[/{colour}]", address, doing)
        logs = Table.grid(padding=(0, 2, 0, 0))
        for name, log in self._stack.logs.items():
            logs.add_row(f"[dim]log of {name}[/dim]", f"[dim]{escape(str(log))}[/dim]")
        minutes, seconds = divmod(int(now - self._begun), 60)
        title = f"Personae, up for {minutes}:{seconds:02d}"
        return Panel(Group(table, "", logs), title=title, subtitle="Ctrl-C stops everything", padding=(1, 2))

    def _look_at(self, name: str) -> tuple[str, str]:
        """State, and what it does; empty where no metrics are served."""
        said = self._stack.announced[f"{name}_service"]
        state = health(said["health_address"], SERVICES[name], _ANSWER_S)
        metrics = _metrics(said["metrics_address"]) if "metrics_address" in said else {}
        if not metrics:
            return state, ""
        return state, _trainer(metrics) if name == "trainer" else _inference(metrics)


def _metrics(address: str) -> dict[str, float]:
    """The samples without labels of a Prometheus page; none where it cannot be had."""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=_ANSWER_S) as answer:
            return {name: float(value) for name, value in _SAMPLE.findall(answer.read().decode())}
    except OSError:
        return {}


def _trainer(metrics: Mapping[str, float]) -> str:
    running, waiting, workers = (
        metrics.get(f"personae_trainer_{name}", 0) for name in ("trainings_running", "trainings_waiting", "workers")
    )
    speed = metrics.get("personae_trainer_steps_per_second", 0)
    said = f"{running:.0f} of {workers:.0f} workers train, {waiting:.0f} trainings wait"
    return f"{said}, {speed:.1f} steps/s" if speed else said


def _inference(metrics: Mapping[str, float]) -> str:
    requests, images = (metrics.get(f"personae_inference_{name}", 0) for name in ("requests_open", "images_waiting"))
    return f"{requests:.0f} requests, {images:.0f} images to come"
