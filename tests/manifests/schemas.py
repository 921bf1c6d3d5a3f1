"""The schemas that rendered objects are held against: three versions of Kubernetes, and those of custom resources.

Its one rule: strictly. An unknown field is an error, and so is a kind that nobody has a schema of.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
from jsonschema import Draft202012Validator

from tests.manifests.rendered import Object

VERSIONS = ("1.35.0", "1.36.0", "1.37.0")
"""The releases of Kubernetes that get patches, of which the package has one schema each."""
_FOLDER = Path(__file__).parent / "schemas"


def assert_valid(objects: list[Object]) -> None:
    """Every object fits its schemas."""
    for found in objects:
        if (_FOLDER / f"{found['kind']}.json").exists():
            complaints = [
                f"{error.json_path}: {error.message}" for error in _validator(found["kind"]).iter_errors(found)
            ]
            assert complaints == [], (found["kind"], found["metadata"]["name"], complaints)
        else:
            for version in VERSIONS:
                kubernetes_validate.validate(found, version, strict=True)


@cache
def _validator(kind: str) -> Any:
    schema = json.loads((_FOLDER / f"{kind}.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)
