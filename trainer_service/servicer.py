"""TrainerService over gRPC: every handler translates, calls, translates back. Errors are mapped by the interceptor."""

import asyncio
from collections.abc import AsyncIterator

import grpc

from personae.v1 import trainer_pb2 as pb
from personae.v1 import trainer_pb2_grpc
from service_kit.names import (
    DatasetName,
    ProjectName,
    TrainingName,
)
from trainer_service import asked, wire
from trainer_service.adapters import Adapters
from trainer_service.datasets import Datasets
from trainer_service.deletion import Deletion
from trainer_service.executor import Executor
from trainer_service.exporting import Exporting
from trainer_service.importing import Importing
from trainer_service.intake import receive_images
from trainer_service.paging import PageRequest
from trainer_service.sweeping import Sweeping
from trainer_service.trainings import Trainings
from trainer_service.watching import Heartbeat, Watching


class TrainerServicer(trainer_pb2_grpc.TrainerServiceServicer):
    """The rpcs that are built; the generated base class answers UNIMPLEMENTED for the rest."""

    def __init__(
        self,
        datasets: Datasets,
        trainings: Trainings,
        adapters: Adapters,
        exporting: Exporting,
        importing: Importing,
        watching: Watching,
        executor: Executor,
        deletion: Deletion,
        sweeping: Sweeping,
    ) -> None:
        self._datasets = datasets
        self._trainings = trainings
        self._adapters = adapters
        self._exporting = exporting
        self._importing = importing
        self._watching = watching
        self._executor = executor
        self._deletion = deletion
        self._sweeping = sweeping

    async def CreateDataset(
        self, request: pb.CreateDatasetRequest, context: grpc.aio.ServicerContext
    ) -> pb.CreateDatasetResponse:
        ids = request.parent, request.dataset_id, request.request_id, request.incoming_id
        record = await asyncio.to_thread(self._datasets.create, *ids, asked.consent(request))
        return pb.CreateDatasetResponse(dataset=wire.dataset(record))

    async def UploadImages(
        self, request: AsyncIterator[pb.UploadImagesRequest], context: grpc.aio.ServicerContext
    ) -> pb.UploadImagesResponse:
        parts = (asked.upload_part(message) async for message in request)
        record = await receive_images(self._datasets, parts)
        return pb.UploadImagesResponse(dataset=wire.dataset(record))

    async def GetDataset(
        self, request: pb.GetDatasetRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetDatasetResponse:
        record = await asyncio.to_thread(self._datasets.get, asked.parsed(DatasetName, request.name, "name"))
        return pb.GetDatasetResponse(dataset=wire.dataset(record))

    async def ListDatasets(
        self, request: pb.ListDatasetsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListDatasetsResponse:
        project = asked.parsed(ProjectName, request.parent, "parent")
        page = PageRequest(request.page_size, request.page_token)
        records, token = await asyncio.to_thread(self._datasets.page, project, page)
        datasets = [wire.dataset(record, with_images=False) for record in records]
        return pb.ListDatasetsResponse(datasets=datasets, next_page_token=token)

    async def DeleteDataset(
        self, request: pb.DeleteDatasetRequest, context: grpc.aio.ServicerContext
    ) -> pb.DeleteDatasetResponse:
        name = asked.parsed(DatasetName, request.name, "name")
        trainings = await asyncio.to_thread(self._deletion.delete_dataset, name, request.request_id)
        self._sweeping.poke()
        for training in trainings:
            await self._executor.cancel(training)
        return pb.DeleteDatasetResponse()

    async def CreateTraining(
        self, request: pb.CreateTrainingRequest, context: grpc.aio.ServicerContext
    ) -> pb.CreateTrainingResponse:
        created = await asyncio.to_thread(
            self._trainings.create, asked.training_request(request), self._executor.device()
        )
        self._executor.poke()
        return wire.created(created)

    async def GetTraining(
        self, request: pb.GetTrainingRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetTrainingResponse:
        record = await asyncio.to_thread(self._trainings.get, asked.parsed(TrainingName, request.name, "name"))
        return pb.GetTrainingResponse(training=wire.training(record))

    async def ListTrainings(
        self, request: pb.ListTrainingsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListTrainingsResponse:
        project = asked.parsed(ProjectName, request.parent, "parent")
        page = PageRequest(request.page_size, request.page_token)
        records, token = await asyncio.to_thread(self._trainings.page, project, page)
        return pb.ListTrainingsResponse(trainings=[wire.training(record) for record in records], next_page_token=token)

    async def CancelTraining(
        self, request: pb.CancelTrainingRequest, context: grpc.aio.ServicerContext
    ) -> pb.CancelTrainingResponse:
        name = asked.parsed(TrainingName, request.name, "name")
        record = await asyncio.to_thread(self._trainings.cancel, name)
        await self._executor.cancel(name)
        return pb.CancelTrainingResponse(training=wire.training(record))

    async def DeleteTraining(
        self, request: pb.DeleteTrainingRequest, context: grpc.aio.ServicerContext
    ) -> pb.DeleteTrainingResponse:
        name = asked.parsed(TrainingName, request.name, "name")
        await asyncio.to_thread(self._deletion.delete_training, name, request.request_id)
        self._sweeping.poke()
        return pb.DeleteTrainingResponse()

    async def WatchTraining(
        self, request: pb.WatchTrainingRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.WatchTrainingResponse]:
        name = asked.parsed(TrainingName, request.name, "name")
        async for seen in self._watching.watch(name, request.after_sequence):
            if isinstance(seen, Heartbeat):
                yield pb.WatchTrainingResponse(heartbeat=pb.WatchTrainingResponse.Heartbeat())
            else:
                yield pb.WatchTrainingResponse(event=wire.event(seen))

    async def GetAdapter(
        self, request: pb.GetAdapterRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetAdapterResponse:
        manifest = await asyncio.to_thread(self._adapters.get, asked.adapter_name(request.name, "name"))
        return pb.GetAdapterResponse(adapter=wire.adapter(manifest))

    async def ListAdapters(
        self, request: pb.ListAdaptersRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListAdaptersResponse:
        parent = asked.adapters_parent(request.parent, "parent")
        page = PageRequest(request.page_size, request.page_token)
        manifests, token = await asyncio.to_thread(self._adapters.page, parent, page)
        return pb.ListAdaptersResponse(adapters=[wire.adapter(found) for found in manifests], next_page_token=token)

    async def DeleteAdapter(
        self, request: pb.DeleteAdapterRequest, context: grpc.aio.ServicerContext
    ) -> pb.DeleteAdapterResponse:
        name = asked.adapter_name(request.name, "name")
        await asyncio.to_thread(self._deletion.delete_adapter, name, request.request_id)
        self._sweeping.poke()
        return pb.DeleteAdapterResponse()

    async def ExportAdapter(
        self, request: pb.ExportAdapterRequest, context: grpc.aio.ServicerContext
    ) -> pb.ExportAdapterResponse:
        name, key_names = asked.export_request(request)
        return wire.export(await asyncio.to_thread(self._exporting.export, name, key_names))

    async def ImportAdapter(
        self, request: AsyncIterator[pb.ImportAdapterRequest], context: grpc.aio.ServicerContext
    ) -> pb.ImportAdapterResponse:
        parts = (asked.import_part(message) async for message in request)
        return pb.ImportAdapterResponse(adapter=wire.adapter(await self._importing.receive(parts)))

    async def ReadArtifact(
        self, request: pb.ReadArtifactRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ReadArtifactResponse]:
        name = asked.adapter_name(request.adapter, "adapter")
        artifact = await asyncio.to_thread(self._adapters.open, name, request.artifact_id, request.read_offset)
        yield wire.artifact_header(artifact.manifest, artifact.entry)
        chunks = self._adapters.read(artifact, request.read_offset)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield pb.ReadArtifactResponse(chunk=chunk)
