"""What the package promises to whoever imports it."""

import subprocess
import sys
from importlib.resources import files

import pytest

import personae
from personae.v1 import dataset_pb2, inference_pb2, training_pb2
from personae.vocabulary import number, word

_IMPORT_WITHOUT = """
import sys
for name in ("torch", "typer", "rich", "minio", "pydantic"):
    sys.modules[name] = None
import personae
"""


def test_it_imports_with_nothing_but_its_declared_needs():
    subprocess.run([sys.executable, "-c", _IMPORT_WITHOUT], check=True, timeout=60)


def test_the_command_says_how_to_install_it_where_its_extra_is_missing():
    program = _IMPORT_WITHOUT + "from personae.cli.__main__ import main\nmain()"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr == "The command line is not installed: pip install 'personae[cli]'\n"


def test_exported_names_are_sorted_and_exist():
    assert personae.__all__ == sorted(personae.__all__)
    assert all(hasattr(personae, name) for name in personae.__all__)


def test_every_error_of_the_family_is_exported():
    family = {name for name, found in vars(personae.errors).items() if isinstance(found, type)}
    errors = {name for name in family if issubclass(getattr(personae.errors, name), personae.PersonaeError)}
    assert errors <= set(personae.__all__)


def test_it_says_that_it_is_typed():
    assert files(personae).joinpath("py.typed").is_file()


@pytest.mark.parametrize(
    "enum",
    [
        training_pb2.Training.State,
        training_pb2.Stage,
        inference_pb2.Scheduler,
        inference_pb2.ImageFormat,
        inference_pb2.ServedAdapter.Residency,
        dataset_pb2.ImageReport.Rejection,
    ],
)
def test_every_enum_value_has_a_word_that_leads_back_to_it(enum):
    words = [word(enum.DESCRIPTOR, value) for value in enum.values()]
    assert words[0] == ""
    assert [number(enum.DESCRIPTOR, "field", spelled) for spelled in words[1:]] == list(enum.values())[1:]
    assert word(enum.DESCRIPTOR, 999) == "unknown-999"
