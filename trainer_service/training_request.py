"""What a caller may ask of CreateTraining: checked here, all violations at once. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from base_models.catalog import BaseModelEntry
from service_kit.errors import Violations
from service_kit.names import DatasetName, MalformedName, ProjectName, check_id
from trainer_service.request_id import check_request_id
from trainer_service.training_config import Given, check_ranges

DEFAULT_TRIGGER_WORD = "sks"
_MAX_TRIGGER = 32
_MAX_CLASS_NOUN = 64
_MAX_LICENCE = 200


@dataclass(frozen=True)
class TrainingRequest:
    """The request as it came; empty text and missing keys of `config` mean: choose for me."""

    parent: str
    dataset: str
    adapter_id: str
    base_model: str
    trigger_word: str
    class_noun: str
    config: Given
    request_id: str
    validate_only: bool
    new_version: bool
    unknown_enums: tuple[tuple[str, int], ...] = ()
    licence: str = ""


@dataclass(frozen=True)
class CheckedRequest:
    """The request, parsed and with names resolved."""

    dataset: DatasetName
    adapter_id: str
    entry: BaseModelEntry
    trigger_word: str
    class_noun: str
    config: dict[str, int | float | str | bool | tuple[str, ...]] = field(default_factory=dict)
    licence: str = ""

    def digest(self, new_version: bool) -> str:
        """Equal for requests that ask for the same training."""
        asked: list[object] = [
            str(self.dataset),
            self.adapter_id,
            self.entry.name,
            self.trigger_word,
            self.class_noun,
            dict(sorted(self.config.items())),
            new_version,
        ]
        # Left out where empty, so that requests from before there was such a field keep their digest.
        if self.licence:
            asked.append(self.licence)
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def check_request(request: TrainingRequest, allowed: Mapping[str, BaseModelEntry]) -> CheckedRequest:
    """Check a request against the allow-list, whose first entry is the default. Raises InvalidRequest."""
    violations = Violations()
    check_request_id(request.request_id, violations)
    project = ProjectName("")
    dataset = DatasetName("", "")
    try:
        project = ProjectName.parse(request.parent)
    except MalformedName as error:
        violations.add("parent", str(error))
    try:
        dataset = DatasetName.parse(request.dataset)
        if project.project and dataset.project != project.project:
            violations.add("training.dataset", f"found a dataset of {dataset.project!r}; allowed is one of {project}")
    except MalformedName as error:
        violations.add("training.dataset", str(error))
    try:
        check_id(request.adapter_id)
    except MalformedName as error:
        violations.add("training.adapter_id", str(error))
    name = request.base_model or next(iter(allowed))
    entry = allowed.get(name)
    if entry is None:
        violations.check(False, "training.base_model", name[:80], " or ".join(allowed))
    trigger_word = request.trigger_word or DEFAULT_TRIGGER_WORD
    check_trigger_word(trigger_word, "training.trigger_word", violations)
    class_noun = request.class_noun or (entry.class_noun if entry else "")
    check_class_noun(class_noun, "training.class_noun", violations)
    check_licence(request.licence, "training.licence", violations)
    for unknown_field, value in request.unknown_enums:
        violations.check(False, unknown_field, value, "a value that the contract names")
    if entry is not None:
        check_ranges(request.config, entry, "training.config", violations)
    violations.raise_if_any()
    assert entry is not None  # noted as a violation above
    return CheckedRequest(
        dataset,
        request.adapter_id,
        entry,
        trigger_word,
        class_noun,
        dict(request.config),
        request.licence,
    )


def check_trigger_word(trigger_word: str, field: str, violations: Violations) -> None:
    """Note a trigger word that is none."""
    one_word = trigger_word.isprintable() and len(trigger_word.split()) == 1 and trigger_word == trigger_word.strip()
    violations.check(
        one_word and "," not in trigger_word and len(trigger_word) <= _MAX_TRIGGER,
        field,
        trigger_word[:80],
        f"one word of 1 to {_MAX_TRIGGER} characters without a comma",
    )


def check_class_noun(class_noun: str, field: str, violations: Violations) -> None:
    """Note a class noun that is none."""
    violations.check(
        class_noun.isprintable() and class_noun == class_noun.strip() and len(class_noun) <= _MAX_CLASS_NOUN,
        field,
        class_noun[:80],
        f"1 to {_MAX_CLASS_NOUN} printable characters",
    )


def check_licence(licence: str, field: str, violations: Violations) -> None:
    """Note a licence that is too long or unprintable."""
    violations.check(
        licence.isprintable() and len(licence) <= _MAX_LICENCE,
        field,
        licence[:80],
        f"at most {_MAX_LICENCE} printable characters",
    )
