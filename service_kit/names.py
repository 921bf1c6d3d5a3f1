"""Resource names: parsing and printing. Pure.

Ids are checked here once; object keys are built from these types and never from text that came from outside.
"""

import re
from dataclasses import dataclass
from typing import Self

ID_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
DEFAULT_PROJECT = "default"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_VERSION = re.compile(r"[1-9][0-9]{0,5}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class MalformedName(ValueError):
    """A resource name or id that does not have its form; the text says what was found and what is allowed."""


def check_id(text: str) -> str:
    """Return `text` if it is an id; raise MalformedName otherwise."""
    if _ID.fullmatch(text) is None:
        raise MalformedName(f"found {_shown(text)}; allowed is an id matching {ID_PATTERN}")
    return text


def check_digest(text: str) -> str:
    """Return `text` if it is a SHA-256 in 64 lower-case hex digits; raise MalformedName otherwise."""
    if _DIGEST.fullmatch(text) is None:
        raise MalformedName(f"found {_shown(text)}; allowed are 64 lower-case hex digits")
    return text


@dataclass(frozen=True, order=True)
class ProjectName:
    """`projects/{project}`: the tenant."""

    project: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a name; empty text means the default project. Raises MalformedName."""
        (project,) = _ids(text or f"projects/{DEFAULT_PROJECT}", "projects/{project}")
        return cls(project)

    def __str__(self) -> str:
        return f"projects/{self.project}"


@dataclass(frozen=True, order=True)
class DatasetName:
    """`projects/{project}/datasets/{dataset}`."""

    project: str
    dataset: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a name. Raises MalformedName."""
        return cls(*_ids(text, "projects/{project}/datasets/{dataset}"))

    def __str__(self) -> str:
        return f"projects/{self.project}/datasets/{self.dataset}"


@dataclass(frozen=True, order=True)
class DatasetImageName:
    """`projects/{project}/datasets/{dataset}/images/{digest}`: a stored picture, by the SHA-256 (hex) of its bytes."""

    dataset: DatasetName
    digest: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a name. Raises MalformedName."""
        stem, separator, digest = text.rpartition("/images/")
        if not separator or _DIGEST.fullmatch(digest) is None:
            form = "projects/{project}/datasets/{dataset}/images/{digest}"
            raise MalformedName(f"found {_shown(text)}; allowed is {form}, the digest in 64 hex digits")
        return cls(DatasetName.parse(stem), digest)

    def __str__(self) -> str:
        return f"{self.dataset}/images/{self.digest}"


@dataclass(frozen=True, order=True)
class TrainingName:
    """`projects/{project}/trainings/{training}`."""

    project: str
    training: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a name. Raises MalformedName."""
        return cls(*_ids(text, "projects/{project}/trainings/{training}"))

    def __str__(self) -> str:
        return f"projects/{self.project}/trainings/{self.training}"


@dataclass(frozen=True, order=True)
class AdapterName:
    """`projects/{project}/adapters/{adapter}`: all versions of an adapter."""

    project: str
    adapter: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a name. Raises MalformedName."""
        return cls(*_ids(text, "projects/{project}/adapters/{adapter}"))

    def version(self, number: int) -> "AdapterVersionName":
        """The name of one version."""
        return AdapterVersionName(self.project, self.adapter, number)

    def __str__(self) -> str:
        return f"projects/{self.project}/adapters/{self.adapter}"


@dataclass(frozen=True, order=True)
class AdapterVersionName:
    """`projects/{project}/adapters/{adapter}/versions/{version}`; versions count from 1."""

    project: str
    adapter: str
    version: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a name. Raises MalformedName."""
        stem, separator, number = text.rpartition("/versions/")
        if not separator or _VERSION.fullmatch(number) is None:
            raise _malformed(text, "projects/{project}/adapters/{adapter}/versions/{version}")
        name = AdapterName.parse(stem)
        return cls(name.project, name.adapter, int(number))

    @property
    def adapter_name(self) -> AdapterName:
        """The adapter this is a version of."""
        return AdapterName(self.project, self.adapter)

    def __str__(self) -> str:
        return f"{self.adapter_name}/versions/{self.version}"


def parse_adapter(text: str) -> AdapterName | AdapterVersionName:
    """Parse the name of an adapter (its latest version is meant) or of one version. Raises MalformedName."""
    return AdapterVersionName.parse(text) if "/versions/" in text else AdapterName.parse(text)


def _ids(text: str, form: str) -> list[str]:
    found, wanted = text.split("/"), form.split("/")
    if len(found) != len(wanted):
        raise _malformed(text, form)
    ids = []
    for part, pattern in zip(found, wanted, strict=True):
        if pattern.startswith("{"):
            if _ID.fullmatch(part) is None:
                raise _malformed(text, form)
            ids.append(part)
        elif part != pattern:
            raise _malformed(text, form)
    return ids


def _malformed(text: str, form: str) -> MalformedName:
    return MalformedName(f"found {_shown(text)}; allowed is {form}, each id matching {ID_PATTERN}")


def _shown(text: str) -> str:
    return "nothing" if not text else repr(text if len(text) <= 80 else text[:77] + "...")
