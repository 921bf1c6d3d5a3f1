"""The verbs of `personae.aio.Client` that delete: those of `personae/removing.py`, awaited."""

from collections.abc import AsyncGenerator

from personae import calls, requests
from personae.aio.connection import Connection
from personae.connection import needed
from personae.images import MadeImage
from personae.resources import Adapter, Dataset


class Removing:
    """The part of `personae.aio.Client` that takes away what the other parts made."""

    project: str
    _trainer: Connection | None
    _inference: Connection | None

    async def delete_dataset(self, name: Dataset | str) -> None:
        """Delete a dataset and all that was made of it: trainings, adapters, images in the bucket.

        A training that runs on it is stopped. The adapters stop being served within 5 seconds. Ids of deleted datasets
        are not given again.
        """
        full_name = requests.resource_name(self.project, "datasets", name)
        await needed(self._trainer, "trainer").ask(calls.delete_dataset(full_name))

    async def delete_training(self, name: str) -> None:
        """Delete an ended training's record, events, samples and checkpoints, by its id or name. Its adapter stays."""
        full_name = requests.resource_name(self.project, "trainings", name)
        await needed(self._trainer, "trainer").ask(calls.delete_training(full_name))

    async def delete_adapter(self, name: Adapter | str) -> None:
        """Delete the version of an adapter that is named, or all, with the images in the bucket that it made.

        It stops being served within 5 seconds; `look_up_image` still finds what it made.
        """
        full_name = requests.resource_name(self.project, "adapters", name)
        await needed(self._trainer, "trainer").ask(calls.delete_adapter(full_name))

    def images_of(self, source: Adapter | Dataset | str) -> AsyncGenerator[MadeImage, None]:
        """The images that were made with an adapter version, or from a dataset's pictures, in order of their hashes.

        source: an Adapter or a Dataset, or the name of either; `micah/versions/2` is an adapter's.
        """
        parent = requests.resource_name(self.project, "adapters", source)
        return needed(self._inference, "inference").pages(lambda token: calls.list_images(parent, token))
