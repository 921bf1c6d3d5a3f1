"""What a TrainerService refuses: the rows of the table that are its own."""

from typing import Any

import grpc

from personae.v1 import adapter_pb2, dataset_pb2, training_pb2
from personae.v1 import trainer_pb2 as pb
from tests.bad_inputs.case import Case

Code = grpc.StatusCode
ID_PATTERN = "^[a-z0-9][a-z0-9-]{0,62}$"
BAD_IDS = ["../x", "/abs", "a//b", "%2e%2e", "a\0b", "a\nb", "A", "a" * 1025]


def train(dataset: str, **changes: Any) -> pb.CreateTrainingRequest:
    """A request for a training; `changes` are fields of it or of its training."""
    names = ("request_id", "parent", "new_version", "validate_only")
    request = {key: changes.pop(key) for key in names if key in changes}
    training = training_pb2.Training(**({"dataset": dataset, "adapter_id": "cat"} | changes))
    return pb.CreateTrainingRequest(training=training, **request)


def invalid(row: int, what: str, rpc: str, request: Any, *fields: str, says: tuple[str, ...] = ()) -> Case:
    return Case(
        row,
        what,
        lambda world: world.trainer(rpc, request),
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        frozenset(fields),
        says=says,
    )


def _missing(row: int, what: str, rpc: str, request: Any) -> Case:
    return Case(
        row,
        what,
        lambda world: world.trainer(rpc, request),
        Code.NOT_FOUND,
        "NOT_FOUND",
        details=("ResourceInfo",),
        says=("does not exist",),
    )


NOWHERE = "projects/default"
CASES = [
    Case(
        1,
        "a training on a dataset without pictures",
        lambda world: world.trainer("CreateTraining", train(world.empty_dataset)),
        Code.FAILED_PRECONDITION,
        "DATASET_NOT_READY",
        details=("PreconditionFailure",),
        says=("0 usable pictures; a training starts with 3",),
    ),
    _missing(3, "a dataset that is not there", "GetDataset", pb.GetDatasetRequest(name=f"{NOWHERE}/datasets/none")),
    _missing(3, "a training that is not there", "GetTraining", pb.GetTrainingRequest(name=f"{NOWHERE}/trainings/none")),
    _missing(3, "an adapter that is not there", "GetAdapter", pb.GetAdapterRequest(name=f"{NOWHERE}/adapters/none")),
    _missing(
        3, "a version that is not there", "GetAdapter", pb.GetAdapterRequest(name=f"{NOWHERE}/adapters/none/versions/9")
    ),
    _missing(3, "a training on nothing", "CreateTraining", train(f"{NOWHERE}/datasets/none")),
    _missing(3, "a watch of nothing", "WatchTraining", pb.WatchTrainingRequest(name=f"{NOWHERE}/trainings/none")),
    _missing(3, "a file of nothing", "ReadArtifact", pb.ReadArtifactRequest(adapter=f"{NOWHERE}/adapters/none")),
    _missing(
        3,
        "an export of nothing",
        "ExportAdapter",
        pb.ExportAdapterRequest(name=f"{NOWHERE}/adapters/none", format=adapter_pb2.ADAPTER_FORMAT_KOHYA),
    ),
    _missing(3, "a dataset to delete", "DeleteDataset", pb.DeleteDatasetRequest(name=f"{NOWHERE}/datasets/none")),
    _missing(3, "a training to delete", "DeleteTraining", pb.DeleteTrainingRequest(name=f"{NOWHERE}/trainings/none")),
    _missing(3, "an adapter to delete", "DeleteAdapter", pb.DeleteAdapterRequest(name=f"{NOWHERE}/adapters/none")),
    _missing(4, "another project's dataset", "GetDataset", pb.GetDatasetRequest(name="projects/other/datasets/theirs")),
    _missing(
        4,
        "another project's dataset to train on",
        "CreateTraining",
        train("projects/other/datasets/theirs", parent="projects/other"),
    ),
    _missing(
        4,
        "another project's adapter to read",
        "ReadArtifact",
        pb.ReadArtifactRequest(adapter="projects/other/adapters/theirs/versions/1"),
    ),
    *(
        invalid(
            5,
            f"the id {bad_id[:8]!r}",
            "CreateDataset",
            pb.CreateDatasetRequest(dataset_id=bad_id),
            "dataset_id",
            says=(ID_PATTERN,),
        )
        for bad_id in BAD_IDS
    ),
    *(
        invalid(
            5,
            f"a name with {bad_id[:8]!r}",
            "GetDataset",
            pb.GetDatasetRequest(name=f"{NOWHERE}/datasets/{bad_id}"),
            "name",
        )
        for bad_id in BAD_IDS
    ),
    invalid(5, "an empty name", "GetTraining", pb.GetTrainingRequest(), "name"),
    invalid(5, "version zero", "GetAdapter", pb.GetAdapterRequest(name=f"{NOWHERE}/adapters/a/versions/0"), "name"),
    invalid(
        5,
        "a page of minus one",
        "ListTrainings",
        pb.ListTrainingsRequest(page_size=-1, page_token="../"),
        "page_size",
        "page_token",
    ),
    Case(
        17,
        "no consent where it is required",
        lambda world: world.trainer("CreateTraining", train(world.dataset_without_consent)),
        Code.FAILED_PRECONDITION,
        "CONSENT_REQUIRED",
        details=("PreconditionFailure",),
    ),
    invalid(
        18,
        "a request_id that is no UUID",
        "CreateTraining",
        train(f"{NOWHERE}/datasets/none", request_id="7"),
        "request_id",
    ),
    Case(
        20,
        "a request_id used again for another body",
        lambda world: world.trainer(
            "CreateTraining",
            train(world.dataset, adapter_id="another", request_id=world.used_request_id),
        ),
        Code.ALREADY_EXISTS,
        "REQUEST_ID_REUSED",
        details=("ResourceInfo",),
    ),
    Case(
        21,
        "an adapter id that is taken",
        lambda world: world.trainer("CreateTraining", train(world.dataset, adapter_id=world.adapter_id)),
        Code.ALREADY_EXISTS,
        "ALREADY_EXISTS",
        details=("ResourceInfo",),
        says=("new_version",),
    ),
    Case(
        22,
        "cancelling what has succeeded",
        lambda world: world.trainer("CancelTraining", pb.CancelTrainingRequest(name=world.training)),
        Code.FAILED_PRECONDITION,
        "TRAINING_ENDED",
        details=("PreconditionFailure",),
        says=("SUCCEEDED",),
    ),
    *(
        Case(
            23,
            f"a watch from {sequence}",
            lambda world, sequence=sequence: world.trainer(
                "WatchTraining", pb.WatchTrainingRequest(name=world.training, after_sequence=sequence)
            ),
            Code.OUT_OF_RANGE,
            "OUT_OF_RANGE",
            frozenset({"after_sequence"}),
        )
        for sequence in (-1, 10**12)
    ),
    invalid(
        25,
        "consent of nobody for nothing",
        "CreateDataset",
        pb.CreateDatasetRequest(consent=dataset_pb2.Consent(evidence="x" * 501)),
        "consent.given_by",
        "consent.purpose",
        "consent.evidence",
    ),
    invalid(
        25,
        "consent of nobody for too much",
        "CreateDataset",
        pb.CreateDatasetRequest(consent=dataset_pb2.Consent(purpose="p" * 501)),
        "consent.given_by",
        "consent.purpose",
    ),
    invalid(25, "an export of no name in no format", "ExportAdapter", pb.ExportAdapterRequest(), "name", "format"),
]
