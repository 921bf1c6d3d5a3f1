"""Tests as documents name them: `tests/folder/file.py::test_name`."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_REFERENCE = re.compile(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`")


def references(text: str) -> list[tuple[str, str]]:
    """Every test that a text names: its file and its function, empty where all of the file are meant."""
    return _REFERENCE.findall(text)


def exists(file: str, function: str) -> bool:
    """Whether there is such a test."""
    path = ROOT / file
    if not path.is_file():
        return False
    return not function or any(
        isinstance(node, ast.FunctionDef) and node.name == function for node in ast.walk(ast.parse(path.read_text()))
    )
