"""Deployment settings: one frozen object a service, read from the environment once.

A malformed or unknown `PERSONAE_…` variable stops the start, and the error names it.
"""

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

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
File = Annotated[Path | None, BeforeValidator(lambda value: value or None)]


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text().strip() if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as text ({type(error).__name__})") from None


TextInFile = Annotated[SecretStr, BeforeValidator(_text_of)]
"""What a file holds, which the variable names: how an orchestrator hands over a secret. Read once, at the start."""
# Signatures that a public key checks: whoever reads this server's files cannot sign.
JwtAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches `host:port`."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def default_base_model_cache() -> Path:
    """Where fetched and converted base models lie where nobody says."""
    return Path.home() / ".cache" / "personae" / "base-models"


class StoreSettings(BaseModel):
    """Where the bucket is."""

    model_config = ConfigDict(frozen=True)

    s3_endpoint: str = "http://127.0.0.1:9000"
    """`http://host:port` or `https://host[:port]`."""
    s3_access_key: str = ""
    s3_secret_key: SecretStr = SecretStr("")
    s3_access_key_file: TextInFile = SecretStr("")
    """The file that holds the access key, in place of `PERSONAE_S3_ACCESS_KEY`."""
    s3_secret_key_file: TextInFile = SecretStr("")
    """The file that holds the secret key, in place of `PERSONAE_S3_SECRET_KEY`."""
    s3_bucket: str = "personae"
    s3_region: str = "us-east-1"
    s3_create_bucket: bool = False
    """Make the bucket at start where it does not exist."""
    s3_patience_s: float = 5.0
    """How long a start waits for a store that does not answer, in seconds."""

    @field_validator("s3_access_key_file", "s3_secret_key_file")
    @classmethod
    def _is_given_once(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        key = str(info.field_name).removesuffix("_file")
        if value.get_secret_value() and info.data.get(key) not in ("", SecretStr("")):
            raise ValueError(f"set together with {PREFIX}{key.upper()}; allowed is one of the two")
        return value

    @property
    def keys(self) -> tuple[str, str]:
        """Access key and secret key, wherever they were given."""
        return (
            self.s3_access_key or self.s3_access_key_file.get_secret_value(),
            self.s3_secret_key.get_secret_value() or self.s3_secret_key_file.get_secret_value(),
        )


class AccessSettings(BaseModel):
    """Who is let in, and by what transport; `docs/security.md` says how to set it up. Only paths: no secret is in here.

    With neither a tokens file nor JWT every caller may do everything, as far as its certificate is accepted.
    """

    model_config = ConfigDict(frozen=True)

    tls_certificate: File = None
    """PEM file of the server's certificate and those between it and its root: turns TLS on. Like all files here it is
    read again when it changes; what cannot be used is logged, and what was read before stays in force."""
    tls_key: File = None
    """PEM file of its private key."""
    tls_client_ca: File = None
    """PEM file of the authorities whose client certificates are accepted; then every client must have one (mTLS)."""
    tokens_file: File = None
    """JSON file of the identities that may call, with the SHA-256 of their tokens and the names in their certificates;
    its form is in `service_kit/identities_file.py`."""
    jwt_key_file: File = None
    """PEM file of the public key that signed tokens (JWT) are checked with; their claims are in
    `service_kit/jwt_identity.py`."""
    jwt_algorithm: JwtAlgorithm | None = None
    """The one algorithm they are accepted with."""
    jwt_audience: str = ""
    """What their claim `aud` must name."""
    jwt_issuer: str = ""
    """What their claim `iss` must be. Empty: it is not looked at."""


# What only the command line reads; a service may be started from the same shell.
_CALLERS_VARIABLE, _CALLERS_PREFIX = PREFIX + "TOKEN", PREFIX + "CLIENT_"


def read_settings(kind: type[S], environ: Mapping[str, str], others: tuple[str, ...]) -> S:
    """Build `kind` from the environment: field `s3_bucket` is read from `PERSONAE_S3_BUCKET`.

    others: name prefixes that belong to other processes and are passed over. Raises SettingsError with everything that
    is wrong.
    """
    fields = variables(kind)
    unknown = [
        name
        for name in environ
        if name.startswith(PREFIX)
        and name not in fields
        and name != _CALLERS_VARIABLE
        and not name.startswith((_CALLERS_PREFIX, *(PREFIX + other for other in others)))
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


def variables(kind: type[BaseModel], path: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Environment variable -> path of the field it fills; nested models are filled from the same flat environment."""
    found: dict[str, tuple[str, ...]] = {}
    for name, field in kind.model_fields.items():
        if (
            get_origin(field.annotation) is None
            and isinstance(field.annotation, type)
            and issubclass(field.annotation, BaseModel)
        ):
            found |= variables(field.annotation, (*path, name))
        else:
            found[PREFIX + name.upper()] = (*path, name)
    return found
