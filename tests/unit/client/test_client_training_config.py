"""Hyper-parameters: one declaration, the contract's fields, and every word and number there and back."""

import ast
import inspect
import subprocess
import sys
import typing

import pytest

import personae
from personae import requests, wire
from personae.v1 import training_pb2
from personae.vocabulary import word

FIELDS = list(training_pb2.TrainingConfig.DESCRIPTOR.fields)
HINTS = typing.get_type_hints(personae.TrainingConfig)
# By the type that the contract gives a field: what ours must be.
PLAIN = {
    FIELDS[0].TYPE_INT32: int,
    FIELDS[0].TYPE_INT64: int,
    FIELDS[0].TYPE_DOUBLE: float,
    FIELDS[0].TYPE_BOOL: bool,
    FIELDS[0].TYPE_STRING: str,
}


def words(field):
    """Every word of an enum field, in the order of its values."""
    return [word(field.enum_type, value.number) for value in field.enum_type.values if value.number != 0]


def some_value(field):
    if field.enum_type is not None:
        return words(field)[-1]
    value = {int: 3, float: 0.25, bool: False, str: "x"}[PLAIN[field.type]]
    return [value, value] if HINTS[field.name] == list[str] else value


def test_the_keys_are_the_contracts_fields():
    assert list(HINTS) == [field.name for field in FIELDS]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_key_has_the_type_and_the_words_of_its_field(field):
    hint = HINTS[field.name]
    if field.enum_type is not None:
        assert list(typing.get_args(hint)) == words(field)
    elif isinstance(field.default_value, list):
        assert hint == list[PLAIN[field.type]]
    else:
        assert hint is PLAIN[field.type]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_value_goes_to_its_field_and_comes_back(field):
    given = {field.name: some_value(field)}
    sent = requests.training_config(given)
    assert [found.name for found, _ in sent.ListFields()] == [field.name]
    assert wire.training_config(sent) == given


def test_every_word_of_every_enum_goes_there_and_back():
    enums = [field for field in FIELDS if field.enum_type is not None]
    assert len(enums) == 8
    for field in enums:
        for spelled in words(field):
            assert wire.training_config(requests.training_config({field.name: spelled})) == {field.name: spelled}


def test_a_value_of_a_newer_server_is_still_read():
    assert wire.training_config(training_pb2.TrainingConfig(preset=99)) == {"preset": "unknown-99"}


def test_only_what_was_given_is_sent_and_nothing_is_not_zero(client, trainer):
    client.train("projects/default/datasets/d1", name="micah", prior_weight=0.0, precision="bfloat16", steps=None)
    config = trainer.requests["CreateTraining"][0].training.config
    assert {field.name for field, _ in config.ListFields()} == {"prior_weight", "precision"}


def test_everything_that_no_field_can_hold_is_said_at_once_and_before_anything_is_sent(client, trainer):
    config = {"stepz": 3, "preset": "slow", "seed": 2**63, "sample_prompts": "a cat", "rank": 4}
    with pytest.raises(personae.InvalidRequest) as raised:
        client.train([b"picture"], name="micah", **config)
    found = {violation.field: violation.description for violation in raised.value.violations}
    assert found.keys() == {"stepz", "preset", "seed", "sample_prompts"}
    assert all(name in found["stepz"] for name in HINTS)
    assert found["preset"] == "found 'slow'; allowed are fast, balanced, quality, low-memory"
    assert "range" in found["seed"]
    assert "list" in found["sample_prompts"]
    assert not trainer.requests


def test_a_record_holds_plain_dicts_of_what_is_set_and_can_be_hashed(client, trainer):
    trainer.training.config.MergeFrom(requests.training_config({"rank": 4}))
    trainer.training.effective_config.MergeFrom(requests.training_config({"rank": 4, "targets": "all"}))
    record = client.get_training("t1").record
    assert record.config == {"rank": 4}
    assert record.effective_config == {"rank": 4, "targets": "all"}
    assert hash(record) == hash(client.get_training("t1").record)


def test_every_key_is_documented_where_it_is_declared():
    (declaration,) = ast.parse(inspect.getsource(personae.TrainingConfig)).body
    lines = declaration.body[1:]  # without the class's own docstring
    documented = [
        key.target.id
        for key, words_on_it in zip(lines[::2], lines[1::2], strict=True)
        if isinstance(key, ast.AnnAssign) and isinstance(words_on_it, ast.Expr)
    ]
    assert documented == list(HINTS)


@pytest.mark.slow
def test_a_type_checker_knows_every_key_and_refuses_others(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import personae\n"
        "async def main(client: personae.Client, awaited: personae.aio.Client) -> None:\n"
        "    client.train('x', name='nova', steps=300, preset='quality')\n"
        "    client.train('x', name='nova', stepz=300)\n"
        "    client.train('x', name='nova', preset='slow')\n"
        "    await awaited.train('x', name='nova', steps=300, preset='quality')\n"
        "    await awaited.train('x', name='nova', stepz=300)\n"
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "--config-file", "", str(program)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    wrong = [line.split(":")[1] for line in checked.stdout.splitlines() if ": error:" in line]
    assert wrong == ["4", "5", "7"], checked.stdout + checked.stderr
