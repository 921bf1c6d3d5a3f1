"""Who may call what: every rpc of both services with the roles that may call it and the resources its requests name.

Its one rule: what is not in this table is refused. `docs/security.md` shows the same table to people.
"""

from dataclasses import dataclass

from service_kit import request_names as names
from service_kit.identity import Role
from service_kit.request_names import NamesOf

_VIEWS = frozenset({Role.VIEWER, Role.TRAINER, Role.OPERATOR})
_TRAINS = frozenset({Role.TRAINER, Role.OPERATOR})
_GENERATES = frozenset({Role.GENERATOR, Role.OPERATOR})
_OPERATES = frozenset({Role.OPERATOR})
_ANY = frozenset(Role)


@dataclass(frozen=True)
class Rule:
    """What it takes to call an rpc."""

    roles: frozenset[Role]
    """One of these."""
    names_of: NamesOf
    """What its requests name: each must belong to a project of the identity."""
    needs_all_projects: bool = False
    """Its answer tells of all projects, so only an identity that has all may call it."""


_TRAINER = "/personae.v1.TrainerService/"
_INFERENCE = "/personae.v1.InferenceService/"

OPEN = frozenset(f"/grpc.health.v1.Health/{method}" for method in ("Check", "List", "Watch"))
"""Rpcs that anybody may call: they say whether the server serves, and nothing else."""

RULES = {
    _TRAINER + "CreateDataset": Rule(_TRAINS, names.parent),
    _TRAINER + "UploadImages": Rule(_TRAINS, names.upload),
    _TRAINER + "GetDataset": Rule(_VIEWS, names.dataset),
    _TRAINER + "ListDatasets": Rule(_VIEWS, names.parent),
    _TRAINER + "DeleteDataset": Rule(_TRAINS, names.dataset),
    _TRAINER + "CreateTraining": Rule(_TRAINS, names.wanted_training),
    _TRAINER + "GetTraining": Rule(_VIEWS, names.training),
    _TRAINER + "ListTrainings": Rule(_VIEWS, names.parent),
    _TRAINER + "CancelTraining": Rule(_TRAINS, names.training),
    _TRAINER + "DeleteTraining": Rule(_TRAINS, names.training),
    _TRAINER + "WatchTraining": Rule(_VIEWS, names.training),
    _TRAINER + "GetAdapter": Rule(_ANY, names.adapter),
    _TRAINER + "ListAdapters": Rule(_ANY, names.project_or_adapter),
    _TRAINER + "DeleteAdapter": Rule(_TRAINS, names.adapter),
    _TRAINER + "ExportAdapter": Rule(_TRAINS, names.adapter),
    _TRAINER + "ImportAdapter": Rule(_TRAINS, names.imported),
    _TRAINER + "ReadArtifact": Rule(_TRAINS, names.adapter_field),
    _INFERENCE + "Generate": Rule(_GENERATES, names.generation),
    _INFERENCE + "ListServedAdapters": Rule(_OPERATES, names.nothing, needs_all_projects=True),
    _INFERENCE + "PreloadAdapter": Rule(_GENERATES, names.adapter_field),
    _INFERENCE + "GetServingInfo": Rule(_ANY, names.nothing),
    _INFERENCE + "LookUpImage": Rule(_ANY, names.image),
    _INFERENCE + "ListImages": Rule(_ANY, names.maker_of_images),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule(_ANY, names.nothing),
}
