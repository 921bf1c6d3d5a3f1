"""Which resources, of which projects, a request names: how each field of the contract that holds a name is read.

Its one rule: a field is read by the parser that its handler uses. Text that is no name yields nothing here, and the
handler refuses it as INVALID_ARGUMENT.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from service_kit.names import (
    DEFAULT_PROJECT,
    AdapterName,
    DatasetImageName,
    DatasetName,
    MalformedName,
    ProjectName,
    TrainingName,
    check_digest,
    check_id,
    parse_adapter,
)


@dataclass(frozen=True)
class Named:
    """A resource of a project, with the kind by which a missing one is reported."""

    project: str
    kind: str
    name: str


NamesOf = Callable[[Any], Iterable[Named]]
"""The resources that a request, or one message of a stream, names."""


def nothing(request: Any) -> Iterable[Named]:
    """The request is about the server, and about no project."""
    return ()


def parent(request: Any) -> Iterable[Named]:
    """A collection of a project: `parent`, empty for the default one."""
    return _parsed("Project", ProjectName.parse, request.parent)


def dataset(request: Any) -> Iterable[Named]:
    """`name` is a dataset's."""
    return _parsed("Dataset", DatasetName.parse, request.name)


def training(request: Any) -> Iterable[Named]:
    """`name` is a training's."""
    return _parsed("Training", TrainingName.parse, request.name)


def adapter(request: Any) -> Iterable[Named]:
    """`name` is that of an adapter or of one of its versions."""
    return _parsed("Adapter", parse_adapter, request.name)


def adapter_field(request: Any) -> Iterable[Named]:
    """`adapter` is the name of an adapter or of one of its versions."""
    return _parsed("Adapter", parse_adapter, request.adapter)


def project_or_adapter(request: Any) -> Iterable[Named]:
    """`parent` is a project, or an adapter whose versions are asked for."""
    if "/adapters/" in request.parent:
        return _parsed("Adapter", AdapterName.parse, request.parent)
    return parent(request)


def maker_of_images(request: Any) -> Iterable[Named]:
    """`parent` is an adapter version or a dataset."""
    if "/adapters/" in request.parent:
        return _parsed("Adapter", parse_adapter, request.parent)
    return _parsed("Dataset", DatasetName.parse, request.parent)


def wanted_training(request: Any) -> Iterator[Named]:
    """A CreateTrainingRequest: the dataset, first because that is what would be missing, and the parent."""
    yield from _parsed("Dataset", DatasetName.parse, request.training.dataset)
    yield from parent(request)


def upload(message: Any) -> Iterable[Named]:
    """A message of UploadImages: the header names the dataset."""
    return _parsed("Dataset", DatasetName.parse, message.header.dataset) if message.HasField("header") else ()


def imported(message: Any) -> Iterable[Named]:
    """A message of ImportAdapter: the header has the project as its parent."""
    return parent(message.header) if message.HasField("header") else ()


def generation(request: Any) -> Iterator[Named]:
    """A GenerateRequest: whose share it takes, every adapter, and the picture it starts from."""
    if request.project or not request.adapters:
        yield from _project(request.project)
    for applied in request.adapters:
        yield from _parsed("Adapter", parse_adapter, applied.adapter)
    if request.start.image:
        yield from _parsed("DatasetImage", DatasetImageName.parse, request.start.image)


def image(request: Any) -> Iterable[Named]:
    """A LookUpImageRequest: the picture of a project with a digest."""
    for project in _project(request.project):
        try:
            yield Named(project.project, "Image", f"{project.name}/images/{check_digest(request.digest)}")
        except MalformedName:
            yield project


def _project(project: str) -> Iterator[Named]:
    """A project by its id, empty for the default one."""
    try:
        name = ProjectName(check_id(project or DEFAULT_PROJECT))
    except MalformedName:
        return
    yield Named(name.project, "Project", str(name))


def _parsed(kind: str, parse: Callable[[str], Any], text: str) -> Iterator[Named]:
    try:
        name = parse(text)
    except MalformedName:
        return
    project = name.dataset.project if isinstance(name, DatasetImageName) else name.project
    yield Named(project, kind, str(name))
