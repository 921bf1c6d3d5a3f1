"""Hyper-parameters as a command line gives them: options of their own, and `--set key=value` for every other.

A value is read as the type that `TrainingConfig` declares for its key.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from personae import requests
from personae.errors import InvalidRequest, Violation
from personae.training_config import TrainingConfig

_TYPES = get_type_hints(TrainingConfig)
_ALLOWED = {int: "a whole number", float: "a number", bool: "true or false"}


def _words(kind: Any) -> str:
    """The words that a key takes, where it takes words."""
    return f" ({', '.join(get_args(kind))})" if get_origin(kind) is Literal else ""


KEYS = f"Keys for --set: {', '.join(key + _words(kind) for key, kind in _TYPES.items())}."
"""For a person who asks for help."""


def chosen(options: Mapping[str, object], settings: Sequence[str]) -> TrainingConfig:
    """The options that were given, by their keys, and the settings, each `key=value`.

    A key that takes a list may come several times. Raises InvalidRequest with everything that is wrong.
    """
    config: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    violations = []
    for setting in settings:
        key, separator, text = setting.partition("=")
        kind = _TYPES.get(key)
        try:
            if not separator:
                raise ValueError(f"found {setting!r}; allowed is key=value")
            if kind == list[str]:
                config.setdefault(key, []).append(text)
            elif key in config:
                raise ValueError("given twice")
            else:
                config[key] = _read(kind, text)
        except ValueError as error:
            violations.append(Violation(f"--set {key}", str(error)))
    try:
        requests.training_config(cast(TrainingConfig, config))
    except InvalidRequest as error:
        violations.extend(error.violations)
    if violations:
        raise InvalidRequest(violations)
    return cast(TrainingConfig, config)


def _read(kind: Any, text: str) -> Any:
    """A value of the type; words, and what belongs to no key, stay text."""
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text) if kind in (int, float) else text
    except (KeyError, ValueError):
        raise ValueError(f"found {text!r}; allowed is {_ALLOWED[kind]}") from None
