"""The command `doctor`: what is wrong here, and what to do about it.

Its one rule: it changes nothing that stays. A store that is named is written to below verify/, and swept.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from personae.access import Access
from personae.cli import defaults, json_output, machine_findings, service_findings, store_findings, told
from personae.cli.finding import Finding
from personae.cli.local_stack import Addresses, StackError, checkout
from personae.cli.options import (
    Inference,
    InferenceHealth,
    InferenceMetrics,
    StorePort,
    Trainer,
    TrainerHealth,
    TrainerMetrics,
)
from personae.cli.terminal import beside_bars, err, out

_MARKS = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "wrong": "[red]✗[/red]"}
_BUNDLED = "toon-64"
_ASK_THE_STORE = ("service_kit.bucket_examination",)


def doctor(
    context: typer.Context,
    trainer: Trainer = defaults.TRAINER,
    inference: Inference = defaults.INFERENCE,
    trainer_health: TrainerHealth = defaults.TRAINER_HEALTH,
    inference_health: InferenceHealth = defaults.INFERENCE_HEALTH,
    trainer_metrics: TrainerMetrics = defaults.TRAINER_METRICS,
    inference_metrics: InferenceMetrics = defaults.INFERENCE_METRICS,
    store_port: StorePort = defaults.STORE_PORT,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print JSON alone: {ok, findings: [{check, verdict, found, remedy}]}, verdict ok, warning or wrong.",
        ),
    ] = False,
) -> None:
    """Look for what is wrong here, and say what to do about it.

    Looked at are this machine, torch and the GPU, the base models of PERSONAE_BASE_MODELS, the object store of
    PERSONAE_S3_ENDPOINT (reachable, credentials, bucket, conditional writes, clock), the ports of `personae up`, and
    whether the services answer. Exit code 1 where something is wrong; warnings alone leave it at 0.
    """
    addresses = Addresses(
        trainer, inference, trainer_health, inference_health, trainer_metrics, inference_metrics, store_port
    )
    findings = []
    with err.status("looking"):
        for finding in _findings(addresses, Access(**context.obj)):
            findings.append(finding)
            if not as_json:
                _show(finding)
    wrong = sum(finding.verdict == "wrong" for finding in findings)
    if as_json:
        json_output.write({"ok": not wrong, "findings": [asdict(finding) for finding in findings]})
    else:
        out.print(f"\n{wrong} wrong." if wrong else "\nNothing is wrong.")
    if wrong:
        raise typer.Exit(1)


def _findings(addresses: Addresses, access: Access) -> Iterator[Finding]:
    endpoint = os.environ.get("PERSONAE_S3_ENDPOINT", "")
    try:
        root = checkout()
    except StackError:
        yield from machine_findings.machine(Path.cwd())
        yield Finding("services", "ok", "no source checkout is here: this is a client of services elsewhere")
    else:
        yield from _of_the_checkout(root, endpoint)
        yield from service_findings.ports(addresses, access, local_store=not endpoint)
    yield from service_findings.services({"trainer": addresses.trainer, "inference": addresses.inference}, access)


def _of_the_checkout(root: Path, endpoint: str) -> Iterator[Finding]:
    allowed = os.environ.get("PERSONAE_BASE_MODELS") or _BUNDLED
    # What takes seconds runs side by side.
    with ExitStack() as stack:
        device = stack.enter_context(told.started("base_models.device_report", [], {}))
        # One that does not answer now is what the doctor is asked about.
        settings = {"PERSONAE_S3_PATIENCE_S": "0"} | told.store_settings()
        models = [
            stack.enter_context(told.started(module, [items], settings if module in _ASK_THE_STORE else {}))
            for module, items in _examinations(allowed)
        ]
        if endpoint:
            store = stack.enter_context(told.started("service_kit.verify_store", ["--quick"], settings))
        yield from machine_findings.machine(root)
        yield from device_findings(device)
        for examination in models:
            yield from model_findings(examination)
        yield from store_findings.external(store, endpoint) if endpoint else [store_findings.local()]


def _examinations(allowed: str) -> Iterator[tuple[str, str]]:
    """The programs that know of base models, each with the entries of the list that it knows of."""
    in_bucket = [item for item in allowed.split(",") if item.partition("=")[2].startswith("bucket:")]
    local = [item for item in allowed.split(",") if item not in in_bucket]
    for module, items in (("base_models.examination", local), ("service_kit.bucket_examination", in_bucket)):
        if items:
            yield module, ",".join(items)


def device_findings(report: told.Telling) -> Iterator[Finding]:
    """What the report of torch and its GPUs means."""
    said = next(report.lines(), None)
    if said is None:
        yield Finding(
            "torch", "wrong", str(report.failure()), "mend this Python environment: `make clean`, `make demo`"
        )
    else:
        yield from machine_findings.torch(said, machine_findings.has_driver())


def model_findings(examination: told.Telling) -> Iterator[Finding]:
    """What the examination of the base models means."""
    count = 0
    for count, said in enumerate(examination.lines(), 1):  # noqa: B007 - how many there were
        yield machine_findings.base_model(said)
    if not count:
        yield Finding("base models", "wrong", str(examination.failure()), "mend this checkout or its environment")


def _show(finding: Finding) -> None:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(width=24)
    grid.add_column(overflow="fold")
    grid.add_row(_MARKS[finding.verdict], finding.check, escape(finding.found))
    if finding.remedy:
        grid.add_row("", "", f"[bold]→[/bold] {escape(finding.remedy)}")
    beside_bars().print(grid)
