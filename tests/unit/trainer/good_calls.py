"""What lies in a trainer service's bucket, and for every rpc calls on it that succeed.

Its one rule: what a call uses up is there many times over, and nothing else needs it.
"""

import uuid
from collections.abc import Mapping, Sequence

from google.protobuf.message import Message

from base_models.adapters.adapter_export import StoredTensor, write_safetensors
from personae.v1 import adapter_pb2
from personae.v1 import trainer_pb2 as pb
from personae.v1.training_pb2 import Training
from service_kit.names import AdapterVersionName, TrainingName
from tests.bucket_adapters import publish
from tests.lora_files import LINEAR, file, kohya
from tests.unit.trainer.trainer_fakes import Trainer, bundled, request

PROJECT = "projects/default"
DATASET, HERO = f"{PROJECT}/datasets/cat", f"{PROJECT}/adapters/hero/versions/1"
FRESH = 40
"""How often a call may be made that uses up what it names."""
_LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
_ADAPTER = write_safetensors(
    {f"{_LAYER}.lora_{part}.weight": StoredTensor("F32", (1, 1), bytes(4)) for part in "AB"}, {}
)
_PICTURE = bundled(1)[0].body
_LORA = file(kohya(LINEAR))


def good_calls(trainer: Trainer) -> Mapping[str, Sequence[Message]]:
    """Fills the bucket. By rpc: requests, each of which succeeds; of a client stream, the messages of one call."""
    trainer.dataset("cat", 4)
    # Apart from that one, which may be deleted.
    trainer.dataset("of-trainings", 4)
    publish(trainer.store, AdapterVersionName("default", "hero", 1), _ADAPTER)
    ended = _ended(trainer)
    return {
        "CreateDataset": [pb.CreateDatasetRequest(), pb.CreateDatasetRequest(request_id=str(uuid.uuid4()))],
        "UploadImages": [
            pb.UploadImagesRequest(header=pb.UploadImagesRequest.Header(dataset=DATASET)),
            pb.UploadImagesRequest(image=pb.UploadImagesRequest.Image(filename="a.png", size_bytes=len(_PICTURE))),
            pb.UploadImagesRequest(chunk=_PICTURE),
        ],
        "GetDataset": [pb.GetDatasetRequest(name=DATASET)],
        "ListDatasets": [pb.ListDatasetsRequest(parent=PROJECT, page_size=2)],
        "DeleteDataset": [pb.DeleteDatasetRequest(name=_dataset(trainer, number)) for number in range(FRESH)],
        "CreateTraining": [
            pb.CreateTrainingRequest(training=Training(dataset=DATASET, adapter_id="hero"), new_version=True),
            pb.CreateTrainingRequest(training=Training(dataset=DATASET, adapter_id="new"), validate_only=True),
        ],
        "GetTraining": [pb.GetTrainingRequest(name=ended)],
        "ListTrainings": [pb.ListTrainingsRequest(parent=PROJECT, page_size=2)],
        "CancelTraining": [pb.CancelTrainingRequest(name=str(_queued(trainer))) for _ in range(FRESH)],
        "DeleteTraining": [pb.DeleteTrainingRequest(name=_ended(trainer)) for _ in range(FRESH)],
        "WatchTraining": [pb.WatchTrainingRequest(name=ended), pb.WatchTrainingRequest(name=ended, after_sequence=1)],
        "GetAdapter": [pb.GetAdapterRequest(name=HERO)],
        "ListAdapters": [
            pb.ListAdaptersRequest(parent=PROJECT, page_size=2),
            pb.ListAdaptersRequest(parent=f"{PROJECT}/adapters/hero"),
        ],
        "DeleteAdapter": [pb.DeleteAdapterRequest(name=_adapter(trainer, number)) for number in range(FRESH)],
        "ExportAdapter": [pb.ExportAdapterRequest(name=HERO, format=adapter_pb2.ADAPTER_FORMAT_KOHYA)],
        "ImportAdapter": [
            pb.ImportAdapterRequest(
                header=pb.ImportAdapterRequest.Header(adapter_id="mia", base_model="toon-64", new_version=True)
            ),
            pb.ImportAdapterRequest(chunk=_LORA[:100]),
            pb.ImportAdapterRequest(chunk=_LORA[100:]),
        ],
        "ReadArtifact": [pb.ReadArtifactRequest(adapter=HERO), pb.ReadArtifactRequest(adapter=HERO, read_offset=8)],
    }


def _dataset(trainer: Trainer, number: int) -> str:
    return str(trainer.datasets.create("", f"doomed-{number}", "", "").name)


def _queued(trainer: Trainer) -> TrainingName:
    asked = request(dataset=f"{PROJECT}/datasets/of-trainings", adapter_id="of-trainings", new_version=True)
    return trainer.trainings.create(asked).record.name


def _ended(trainer: Trainer) -> str:
    # Nobody carries it out, so it has ended when it is cancelled.
    return str(trainer.trainings.cancel(_queued(trainer)).name)


def _adapter(trainer: Trainer, number: int) -> str:
    name = AdapterVersionName("default", f"doomed-{number}", 1)
    publish(trainer.store, name)
    # The version, or all of them.
    return str(name if number % 2 else name.adapter_name)
