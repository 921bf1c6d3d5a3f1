"""Deployment settings: one frozen object a service, read from the environment once.

A malformed or unknown `PERSONAE_…` variable stops the start, and the error names it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr, ValidationError

PREFIX = "PERSONAE_"
S = TypeVar("S", bound=BaseModel)


class SettingsError(Exception):
    """The environment does not describe a service that can start."""


def _address(text: str) -> str:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"found {text!r}; allowed is host:port, port 0 to 65535 (0: any free one)")
    return text


Address = Annotated[str, AfterValidator(_address)]
AddressOrNone = Annotated[str, AfterValidator(lambda text: text and _address(text))]
"""Empty: not served at all."""


class StoreSettings(BaseModel):
    """Where the bucket is."""

    model_config = ConfigDict(frozen=True)

    s3_endpoint: str = "http://127.0.0.1:9000"
    """`http://host:port` or `https://host[:port]`."""
    s3_access_key: str = ""
    s3_secret_key: SecretStr = SecretStr("")
    s3_bucket: str = "personae"
    s3_region: str = "us-east-1"
    s3_create_bucket: bool = False
    """Make the bucket at start where it does not exist."""
    s3_patience_s: float = 5.0
    """How long a start waits for a store that does not answer, in seconds."""


def read_settings(kind: type[S], environ: Mapping[str, str], others: tuple[str, ...]) -> S:
    """Build `kind` from the environment: field `s3_bucket` is read from `PERSONAE_S3_BUCKET`.

    others: name prefixes that belong to other processes and are passed over. Raises SettingsError with everything that
    is wrong.
    """
    fields = _variables(kind)
    unknown = [
        name
        for name in environ
        if name.startswith(PREFIX)
        and name not in fields
        and not name.startswith(tuple(PREFIX + other for other in others))
    ]
    complaints = [f"{name}: unknown; known are {', '.join(sorted(fields))}" for name in sorted(unknown)]
    values: dict[str, Any] = {}
    for name, path in fields.items():
        if name in environ:
            target = values
            for step in path[:-1]:
                target = target.setdefault(step, {})
            target[path[-1]] = environ[name]
    try:
        settings = kind.model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            complaints.append(f"{PREFIX}{str(detail['loc'][-1]).upper()}: {detail['msg']}")
    if complaints:
        raise SettingsError("\n".join(complaints))
    return settings


def _variables(kind: type[BaseModel], path: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Environment variable -> path of the field it fills; nested models are filled from the same flat environment."""
    found: dict[str, tuple[str, ...]] = {}
    for name, field in kind.model_fields.items():
        if (
            get_origin(field.annotation) is None
            and isinstance(field.annotation, type)
            and issubclass(field.annotation, BaseModel)
        ):
            found |= _variables(field.annotation, (*path, name))
        else:
            found[PREFIX + name.upper()] = (*path, name)
    return found
