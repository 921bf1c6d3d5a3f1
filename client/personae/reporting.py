"""The verb of a Client for what a training leaves to be looked at."""

from pathlib import Path

from personae import calls, requests
from personae.connection import Connection, needed
from personae.download import Download, place, saved
from personae.resources import Adapter

REPORT = "report.html"
"""The artifact's id; imported adapters have none."""


class Reporting:
    """The part of `personae.Client` that shows how a training went."""

    project: str
    _trainer: Connection | None

    def download_report(self, adapter: Adapter | str, path: str | Path = ".") -> Path:
        """Download the report of an adapter's training to `path`, or into the folder `path`; return where it lies.

        adapter: an Adapter, its id or its name. The report is one HTML file that needs no network; in a folder it is
        called after the adapter, as in `mia-1.html`. It shows the training pictures. NotFound where there is none: for
        an imported adapter, and where it could not be made.
        """
        trainer = needed(self._trainer, "trainer")
        if isinstance(adapter, str):
            adapter = trainer.ask(calls.get_adapter(requests.resource_name(self.project, "adapters", adapter)))
        download = Download(adapter.name, REPORT, trainer.patience)
        return saved(download, trainer.follow(download), place(adapter.name, Path(path), ".html"))
