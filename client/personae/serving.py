"""The verbs of a Client about what the inference server holds in its memory and draws with."""

from collections.abc import Iterator

from personae import calls, requests
from personae.connection import Connection, needed
from personae.resources import Adapter, ServedAdapter, ServedBaseModel


class Serving:
    """The part of `personae.Client` that brings adapters near, and tells where they are and what can be asked."""

    project: str
    _inference: Connection | None

    def preload_adapter(self, name: Adapter | str, *, pinned: bool = False) -> ServedAdapter:
        """Bring an adapter, by its id or name, into the inference server's memory before pictures are asked of it.

        pinned: keep it there until the server stops or it is preloaded again without this. Where several servers share
        an address, this reaches one of them: with `adapter_affinity` the one that will be asked for the pictures.
        """
        inference = needed(self._inference, "inference")
        return inference.ask(calls.preload_adapter(requests.resource_name(self.project, "adapters", name), pinned))

    def served_adapters(self) -> Iterator[ServedAdapter]:
        """The adapters of all projects that the inference server holds, the most recently used first."""
        return needed(self._inference, "inference").pages(calls.list_served_adapters)

    def served_base_models(self) -> tuple[ServedBaseModel, ...]:
        """The base models that the inference server draws with, its default first, and what can be asked of each."""
        return needed(self._inference, "inference").ask(calls.get_serving_info())
