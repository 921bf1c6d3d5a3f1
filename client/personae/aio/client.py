"""The client for asyncio: the verbs and parameters of `personae.Client`, awaited or iterated over with `async for`.

Every method says what to ask (`calls.py`, or a `Stream`) and lets a connection ask it; files are read and written in
threads.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from personae import calls, requests
from personae.access import Access, Tls, Token
from personae.adapter_import import ImportOptions, import_adapter
from personae.aio.batching import Batching
from personae.aio.connection import Connection
from personae.aio.download import saved
from personae.aio.removing import Removing
from personae.aio.reporting import Reporting
from personae.aio.serving import Serving
from personae.aio.training import Training
from personae.connection import needed
from personae.download import Download, place
from personae.generation import Generation, OnPreview, OnProgress
from personae.generation_options import GenerationOptions
from personae.images import Image, ImageOrigin
from personae.patience import Patience
from personae.pictures import Sources, gather
from personae.requests import AdapterChoice, Seeds
from personae.resources import Adapter, Consent, Dataset, TrainingPlan
from personae.training_config import TrainingConfig
from personae.v1.inference_pb2_grpc import InferenceServiceStub
from personae.v1.trainer_pb2_grpc import TrainerServiceStub
from personae.vocabulary import AdapterFormat


class Client(Batching, Removing, Reporting, Serving):
    """Trains adapters and generates with them.

        async with personae.aio.Client(trainer="127.0.0.1:50051", inference="127.0.0.1:50052") as client:
            training = await client.train("pictures/", name="micah")
            adapter = await training.wait(on_event=print)
            async for image in client.generate(adapter.prompt("happy, blue background"), adapter=adapter):
                image.save(f"{image.index}.png")

    trainer, inference: `host:port` of each service; a method whose service was not given raises InvalidRequest.
    project: where ids are looked up and made, and whose share of a busy server is used.
    patience: how long to wait before giving up.
    tls: how to reach services that are served over TLS; without it they are called in plaintext.
    token: who calls, where the services ask for that: a text, or a function that gives the present one before each
    call. It is sent over TLS, or to this machine; to another host in plaintext, InvalidRequest is raised instead.
    adapter_affinity: where `inference` names several servers (`dns:///inference.personae:50052`, or
    `ipv4:10.0.0.1:50052,10.0.0.2:50052`), ask the same one for the same adapter, so that it is loaded there already.

    Methods raise the errors of `personae.errors`. A client belongs to the event loop that first uses it; its tasks may
    share it. Cancelling a task cancels the call that it waits for. Who leaves an iterator before its end and wants its
    call cancelled there and then closes it: `async with contextlib.aclosing(client.generate(...)) as images`.
    """

    def __init__(
        self,
        trainer: str | None = None,
        inference: str | None = None,
        *,
        project: str = "default",
        patience: Patience = Patience(),  # noqa: B008 - frozen
        tls: Tls | None = None,
        token: Token | None = None,
        adapter_affinity: bool = False,
    ) -> None:
        self.project = project
        access = Access(tls, token)
        self._trainer = Connection(trainer, TrainerServiceStub, patience, access) if trainer else None
        self._inference = (
            Connection(inference, InferenceServiceStub, patience, access, adapter_affinity) if inference else None
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close both channels. Trainings go on; streams that are open here end."""
        for connection in (self._trainer, self._inference):
            if connection:
                await connection.close()

    # Datasets

    async def create_dataset(
        self, dataset_id: str = "", *, pictures: Sources, consent: Consent | None = None
    ) -> Dataset:
        """Make a dataset of `pictures`: a folder, or paths, Pillow images or bytes, each JPEG, PNG or WebP.

        dataset_id: empty lets the server choose one. The caption of `x.png` is what `x.txt` beside it says. Pictures
        that cannot be used are no error: see `Dataset.rejected`, and `Dataset.ready` for whether enough are left.
        consent: who gave the right to learn from them; the server may require it.
        """
        gathered = await asyncio.to_thread(gather, pictures)
        trainer = needed(self._trainer, "trainer")
        created = await trainer.ask(calls.create_dataset(self.project, dataset_id, consent))
        return await trainer.send(calls.upload_images(created.name, gathered))

    async def get_dataset(self, name: str) -> Dataset:
        """A dataset with its full report, by its id or its full name."""
        trainer = needed(self._trainer, "trainer")
        return await trainer.ask(calls.get_dataset(requests.resource_name(self.project, "datasets", name)))

    def datasets(self) -> AsyncGenerator[Dataset, None]:
        """Every dataset of the project, by id, without the reports on single pictures."""
        trainer = needed(self._trainer, "trainer")
        return trainer.pages(lambda token: calls.list_datasets(self.project, token))

    # Trainings

    async def train(
        self,
        pictures_or_dataset: Sources | Dataset,
        *,
        name: str,
        new_version: bool = False,
        base_model: str = "",
        trigger_word: str = "",
        class_noun: str = "",
        licence: str = "",
        consent: Consent | None = None,
        **config: Unpack[TrainingConfig],
    ) -> Training:
        """Queue a training and return at once; it survives this program and a restart of the server.

        pictures_or_dataset: a Dataset, its full name, or pictures to make one of, as for `create_dataset`.
        name: id of the adapter to make; where it is taken, AlreadyExists, unless `new_version` asks for its next.
        base_model, trigger_word, class_noun: empty leaves them to the server. config: see TrainingConfig.
        licence: under what licence the adapter may be used. consent: who gave the right to learn from the pictures; a
        dataset that exists already has its own. Both are kept with the adapter and not interpreted.
        """
        wanted = requests.training(
            self.project,
            name,
            new_version=new_version,
            base_model=base_model,
            trigger_word=trigger_word,
            class_noun=class_noun,
            licence=licence,
            config=config,
        )
        trainer = needed(self._trainer, "trainer")
        dataset = await self._dataset_name(pictures_or_dataset, consent)
        return Training(trainer, await trainer.ask(calls.create_training(wanted, dataset)))

    async def plan_training(
        self,
        pictures_or_dataset: Sources | Dataset,
        *,
        name: str,
        new_version: bool = False,
        base_model: str = "",
        trigger_word: str = "",
        class_noun: str = "",
        licence: str = "",
        consent: Consent | None = None,
        **config: Unpack[TrainingConfig],
    ) -> TrainingPlan:
        """What `train` would do with the same arguments, and the time and memory that would take; nothing is trained.

        Raises what `train` would. Pictures are uploaded all the same, once: hand `TrainingPlan.dataset` to `train`.
        """
        wanted = requests.training(
            self.project,
            name,
            new_version=new_version,
            base_model=base_model,
            trigger_word=trigger_word,
            class_noun=class_noun,
            licence=licence,
            config=config,
        )
        trainer = needed(self._trainer, "trainer")
        dataset = await self._dataset_name(pictures_or_dataset, consent)
        return await trainer.ask(calls.plan_training(wanted, dataset))

    async def _dataset_name(self, given: Sources | Dataset, consent: Consent | None) -> str:
        dataset, pictures = calls.dataset_or_pictures(given, consent)
        return dataset or (await self.create_dataset(pictures=pictures, consent=consent)).name

    async def get_training(self, name: str) -> Training:
        """A handle on a training, by its id or its full name."""
        trainer = needed(self._trainer, "trainer")
        call = calls.get_training(requests.resource_name(self.project, "trainings", name))
        return Training(trainer, await trainer.ask(call))

    def trainings(self) -> AsyncGenerator[Training, None]:
        """Every training of the project, by id, which is not the order of creation."""
        trainer = needed(self._trainer, "trainer")
        records = trainer.pages(lambda token: calls.list_trainings(self.project, token))
        return (Training(trainer, record) async for record in records)

    # Adapters

    async def get_adapter(self, name: str) -> Adapter:
        """An adapter by its id or name: a version where it names one, else the latest."""
        trainer = needed(self._trainer, "trainer")
        return await trainer.ask(calls.get_adapter(requests.resource_name(self.project, "adapters", name)))

    def adapters(self, name: str = "") -> AsyncGenerator[Adapter, None]:
        """The latest version of every adapter of the project, by id; or every version of the adapter `name`."""
        trainer = needed(self._trainer, "trainer")
        parent = requests.resource_name(self.project, "adapters", name) if name else requests.parent(self.project)
        return trainer.pages(lambda token: calls.list_adapters(parent, token))

    async def download_adapter(self, name: Adapter | str, path: str | Path, artifact_id: str = "") -> Path:
        """Download an adapter's file to `path`, or into the folder `path`, and return where it lies.

        artifact_id: one of `Adapter.artifacts`; empty means the adapter itself. The file appears complete and with the
        announced hash, or not at all.
        """
        trainer = needed(self._trainer, "trainer")
        full_name = requests.resource_name(self.project, "adapters", name)
        download = Download(full_name, artifact_id, trainer.patience)
        return await saved(download, trainer.follow(download), Path(path))

    async def export_adapter(self, name: Adapter | str, adapter_format: AdapterFormat, path: str | Path) -> Path:
        """Download an adapter as other programs read it to `path`, or into the folder `path`; return where it lies.

        adapter_format: `kohya` for Kohya's scripts and ComfyUI, `diffusers` for `load_lora_weights`. In a folder the
        file is called after the adapter, as in `mia-1.safetensors`. Beside it, with the suffix `.md`, lies its model
        card: base model, trigger word, training, measurements, licence.
        """
        trainer = needed(self._trainer, "trainer")
        full_name = requests.resource_name(self.project, "adapters", name)
        exported = await trainer.ask(calls.export_adapter(full_name, adapter_format))
        path = place(exported.adapter, Path(path), ".safetensors")
        await self.download_adapter(exported.adapter, path.with_suffix(".md"), exported.model_card.artifact_id)
        return await self.download_adapter(exported.adapter, path, exported.artifact.artifact_id)

    async def import_adapter(
        self, file: str | Path | bytes, *, name: str, base_model: str, **options: Unpack[ImportOptions]
    ) -> Adapter:
        """Make an adapter of a LoRA from elsewhere: a safetensors file, by its path or its bytes.

        name: id of the adapter to make. base_model: that the file was made for. options: see ImportOptions.
        """
        trainer = needed(self._trainer, "trainer")
        return await trainer.send(import_adapter(self.project, file, name, base_model, options))

    # Pictures

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        adapter: AdapterChoice | None = None,
        adapters: Sequence[AdapterChoice] = (),
        seeds: Seeds | None = None,
        on_progress: OnProgress | None = None,
        on_preview: OnPreview | None = None,
        **options: Unpack[GenerationOptions],
    ) -> AsyncGenerator[Image, None]:
        """Generate images; yield each as soon as it is finished, in any order. Leaving the iterator cancels the rest.

        prompts: one or several; `Adapter.prompt` words them as the training did.
        adapter, adapters: what to apply, each an Adapter, its id or its name, or a pair of that and a weight from -2
        to 2; none means the base model alone.
        seeds: one image for each seed of each prompt, `[1, 2]` for all prompts, `[[1], [2]]` for each its own; where
        there are none, the server draws `images_per_prompt` for each prompt, and the images carry them.
        on_preview: told of what each image looks like so far, now and then. options: see GenerationOptions.
        """
        inference = needed(self._inference, "inference")
        request = requests.generate(
            self.project,
            prompts,
            adapters=[*([] if adapter is None else [adapter]), *adapters],
            seeds=seeds,
            has_previews=on_preview is not None,
            options=options,
        )
        return inference.follow(Generation(request, on_progress, on_preview, inference.patience))

    async def look_up_image(self, image: Image | bytes | str | Path) -> ImageOrigin:
        """Where an image of the project came from: an Image, or a file as it was delivered, by its bytes or path.

        NotFound where the project made no file with this hash; one that was saved again has another.
        """
        inference = needed(self._inference, "inference")
        return await inference.ask(calls.look_up_image(self.project, image))
