"""The bucket's schema: every object key there is, who writes it, who reads it, whether it is ever overwritten.

Keys are built from parsed names only. A manifest or record is written last: a thing exists when it does.
"""

import hashlib

from service_kit.names import AdapterName, AdapterVersionName, DatasetName, ProjectName, TrainingName

# Widths that make keys sort by number.
_VERSION_DIGITS = 6
_SEQUENCE_DIGITS = 12


# Datasets. Written by TrainerService, read by TrainerService and workers; pictures also by InferenceService.


def incoming_prefix(project: ProjectName, incoming_id: str) -> str:
    """Where operators and other programs put pictures for CreateDataset. Never written by us."""
    return f"{project}/incoming/{incoming_id}/"


def datasets_prefix(project: ProjectName) -> str:
    """One folder for each dataset."""
    return f"{project}/datasets/"


def dataset_record(name: DatasetName) -> str:
    """The dataset: its pictures and report. Replaced by compare-and-swap at each upload."""
    return f"{name}/dataset.json"


def dataset_image(name: DatasetName, digest: str) -> str:
    """A stored picture, named by the SHA-256 of its bytes. Never changed."""
    return f"{name}/images/{digest}.png"


def dataset_mask(name: DatasetName, digest: str) -> str:
    """A picture's stored mask, grey, named by the SHA-256 of its bytes. Never changed."""
    return f"{name}/masks/{digest}.png"


def dataset_trainings_prefix(name: DatasetName) -> str:
    """An entry for each training on the dataset, by id: what its deletion follows."""
    return f"{name}/trainings/"


def dataset_training(name: DatasetName, training: str) -> str:
    """Which adapter version a training on the dataset reserved. Created before the training; outlives it."""
    return f"{dataset_trainings_prefix(name)}{training}.json"


# Trainings. Created by TrainerService, then written by whoever holds the lease.


def trainings_prefix(project: ProjectName) -> str:
    """One folder for each training."""
    return f"{project}/trainings/"


def training_record(name: TrainingName) -> str:
    """The training's state and lease. Created once, then replaced by compare-and-swap only."""
    return f"{name}/training.json"


def training_dataset(name: TrainingName) -> str:
    """The pictures and captions the training uses. Created once, before the record; never changed."""
    return f"{name}/dataset.json"


def event_segment(name: TrainingName, first_sequence: int) -> str:
    """A run of events, named by the sequence of the first. Created once, never changed."""
    return f"{name}/events/{first_sequence:0{_SEQUENCE_DIGITS}d}.json"


def events_prefix(name: TrainingName) -> str:
    """All event segments, in order."""
    return f"{name}/events/"


def training_file(name: TrainingName, artifact_id: str) -> str:
    """A file that the worker made along the way, for example `samples/000035-0.png`; written again by a takeover."""
    return f"{name}/{artifact_id}"


def training_samples_prefix(name: TrainingName) -> str:
    """All sample pictures of a training, by step."""
    return f"{name}/samples/"


def checkpoint_file(name: TrainingName, epoch: int, step: int, filename: str) -> str:
    """A file of a checkpoint. The epoch keeps two workers apart; never changed by another epoch."""
    return f"{name}/checkpoints/{epoch:06d}-{step:08d}/{filename}"


def checkpoints_prefix(name: TrainingName) -> str:
    """All checkpoints of a training."""
    return f"{name}/checkpoints/"


def checkpoint_pointer(name: TrainingName) -> str:
    """Which checkpoint is the latest whole one. Replaced by compare-and-swap; an older epoch never wins."""
    return f"{name}/checkpoints/latest.json"


def queue_prefix() -> str:
    """An entry for each training that has not ended, oldest first: what dispatchers look at."""
    return "queue/"


def queue_entry(name: TrainingName, created_ms: int) -> str:
    """The queue entry of a training. Empty body; written before the record, deleted after the last event."""
    return f"queue/{created_ms:013d}.{name.project}.{name.training}"


def training_of_queue_entry(key: str) -> TrainingName:
    """The training that a queue entry stands for."""
    _, project, training = key.removeprefix(queue_prefix()).split(".")
    return TrainingName(project, training)


def created_ms_of_queue_entry(key: str) -> int:
    """When the training was created, in milliseconds since 1970."""
    return int(key.removeprefix(queue_prefix()).partition(".")[0])


def class_image(base_model_digest: str, prompt_digest: str, index: int) -> str:
    """A generated class picture for prior preservation; a function of base model, prompt and index. Never changed."""
    return f"class-images/{base_model_digest[:16]}/{prompt_digest[:16]}/{index:04d}.png"


# Adapters. Written by workers, imported ones by TrainerService; read by both services.


def training_speed(base_model: str) -> str:
    """What the latest training on a base model took. Written by its worker, whole; only estimates read it."""
    return f"speeds/{hashlib.sha256(base_model.encode()).hexdigest()}.json"


def adapters_prefix(project: ProjectName) -> str:
    """One folder for each adapter."""
    return f"{project}/adapters/"


def adapter_versions_prefix(name: AdapterName) -> str:
    """One folder for each version of an adapter, reserved or published."""
    return f"{name}/versions/"


def adapter_reservation(name: AdapterVersionName) -> str:
    """Which training or import may publish this version. Created once by TrainerService, never changed."""
    return f"{_version_folder(name)}reservation.json"


def adapter_abandonment(name: AdapterVersionName) -> str:
    """Says that a reserved version will never exist: its training failed or was cancelled, or its import was cut off.
    Created by who ended it, or who came upon the rest of the import."""
    return f"{_version_folder(name)}abandoned.json"


def adapter_manifest(name: AdapterVersionName) -> str:
    """The adapter version's birth: created once, after its blobs, never changed."""
    return f"{_version_folder(name)}manifest.json"


def adapter_blob(name: AdapterVersionName, digest: str) -> str:
    """A file of the version, named by the SHA-256 of its bytes. Never changed."""
    return f"{_version_folder(name)}blobs/{digest}"


def adapter_export(name: AdapterVersionName, filename: str) -> str:
    """Which blob an exported file of the version is. Created once by TrainerService, after the blob; never changed."""
    return f"{_version_folder(name)}exports/{filename}.json"


def import_record(project: ProjectName, import_id: str) -> str:
    """What an import with a `request_id` was asked for, as a hash. Created once, before the adapter; never changed."""
    return f"{project}/imports/{import_id}.json"


def version_of_folder(folder: str) -> int:
    """The version number of a folder below `adapter_versions_prefix`."""
    return int(folder.rstrip("/").rpartition("/")[2])


def _version_folder(name: AdapterVersionName) -> str:
    return f"{adapter_versions_prefix(name.adapter_name)}{name.version:0{_VERSION_DIGITS}d}/"


# Deletions. Written by TrainerService, and by whoever finds out that it wrote into something deleted.

Deletable = DatasetName | TrainingName | AdapterVersionName
"""What has a tombstone of its own. An adapter is deleted version by version."""


def folder(name: Deletable) -> str:
    """Where everything of a resource lies."""
    return _version_folder(name) if isinstance(name, AdapterVersionName) else f"{name}/"


def tombstone(name: Deletable) -> str:
    """Says that the resource was deleted, when and by which request. Created once, never deleted."""
    return f"{folder(name)}tombstone.json"


def deletions_prefix() -> str:
    """An entry for each deletion that is not through: what sweeps look at."""
    return "deletions/"


def deletion_entry(name: Deletable, nonce: str) -> str:
    """Has a deleted resource swept. Empty body; written before the tombstone, deleted when nothing is left.

    nonce: whoever wrote late adds an entry of its own, so that the sweep of an earlier one does not take it along.
    """
    match name:
        case DatasetName(project, dataset):
            stem = f"{project}.datasets.{dataset}"
        case TrainingName(project, training):
            stem = f"{project}.trainings.{training}"
        case AdapterVersionName(project, adapter, version):
            stem = f"{project}.adapters.{adapter}.{version}"
    return f"{deletions_prefix()}{stem}.{nonce}"


def deleted_of_entry(key: str) -> Deletable:
    """The resource that a deletion's entry stands for."""
    project, collection, own, *rest = key.removeprefix(deletions_prefix()).split(".")
    if collection == "adapters":
        return AdapterVersionName(project, own, int(rest[0]))
    return DatasetName(project, own) if collection == "datasets" else TrainingName(project, own)


# Images. Written by InferenceService.


def image_ledger_entry(project: ProjectName, digest: str) -> str:
    """Which generation made the image whose file has this SHA-256, and with what; read by LookUpImage.

    Created once, before the image is sent; never changed: the first to make a file stays.
    """
    return f"{project}/images/{digest}.json"


def made_images_prefix(name: DatasetName | AdapterVersionName) -> str:
    """An entry for each image that was made with an adapter version, or from a dataset's pictures, by its hash."""
    return f"{folder(name)}made/"


def made_image(name: DatasetName | AdapterVersionName, image_id: str) -> str:
    """Where such an image lies. Created once, before the image; read by ListImages and by deletions."""
    return f"{made_images_prefix(name)}{image_id}.json"


def generated_image(project: ProjectName, generation_id: str, index: int, suffix: str) -> str:
    """An image that was asked for in the bucket, read by its caller. Written once, before its ledger entry."""
    return f"{project}/generations/{generation_id}/{index:04d}.{suffix}"


# Verification. Written, read and deleted again by the services at their start and by `personae verify-store`.


def verification_prefix(run: str) -> str:
    """What one verification of the store writes; whatever is left there, after a kill -9, is of no use to anybody."""
    return f"verify/{run}/"
