"""Personae: train a LoRA adapter from sixteen pictures and generate with it, over gRPC.

`Client` is where to begin, `aio.Client` on an event loop. Importing this needs no torch and nothing of the services.
"""

from personae import forking  # noqa: F401 - first: whoever else imports gRPC finds it imported

# isort: split
from personae import aio
from personae.access import Tls
from personae.client import Client
from personae.errors import (
    AlreadyExists,
    Busy,
    Corrupted,
    DeadlineExceeded,
    Incomplete,
    InvalidRequest,
    Missing,
    NotBuilt,
    NotFound,
    PermissionDenied,
    PersonaeError,
    PreconditionFailed,
    ServerDefect,
    TooLarge,
    TrainingCancelled,
    TrainingFailed,
    Unauthenticated,
    Unavailable,
    Violation,
)
from personae.events import (
    CheckpointSaved,
    Ended,
    Evaluated,
    Notice,
    Progress,
    SampleReady,
    StageStarted,
    StateChanged,
    TrainingEvent,
    Validated,
)
from personae.images import AppliedAdapter, GenerationProgress, Image, ImageOrigin, MadeImage, Preview
from personae.notebook import Images, show
from personae.patience import Patience
from personae.resources import (
    Adapter,
    Artifact,
    Consent,
    Dataset,
    DatasetReport,
    Evaluation,
    ImageReport,
    ServedAdapter,
    ServedBaseModel,
    TrainingPlan,
    TrainingRecord,
)
from personae.training import Training
from personae.training_config import TrainingConfig

__all__ = [
    "Adapter",
    "AlreadyExists",
    "AppliedAdapter",
    "Artifact",
    "Busy",
    "CheckpointSaved",
    "Client",
    "Consent",
    "Corrupted",
    "Dataset",
    "DatasetReport",
    "DeadlineExceeded",
    "Ended",
    "Evaluated",
    "Evaluation",
    "GenerationProgress",
    "Image",
    "ImageOrigin",
    "ImageReport",
    "Images",
    "Incomplete",
    "InvalidRequest",
    "MadeImage",
    "Missing",
    "NotBuilt",
    "NotFound",
    "Notice",
    "Patience",
    "PermissionDenied",
    "PersonaeError",
    "PreconditionFailed",
    "Preview",
    "Progress",
    "SampleReady",
    "ServedAdapter",
    "ServedBaseModel",
    "ServerDefect",
    "StageStarted",
    "StateChanged",
    "Tls",
    "TooLarge",
    "Training",
    "TrainingCancelled",
    "TrainingConfig",
    "TrainingEvent",
    "TrainingFailed",
    "TrainingPlan",
    "TrainingRecord",
    "Unauthenticated",
    "Unavailable",
    "Validated",
    "Violation",
    "aio",
    "show",
]
