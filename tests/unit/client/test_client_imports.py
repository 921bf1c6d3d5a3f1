"""`import_adapter` of both clients, and the command `import`."""

import pytest
from client_fakes import ADAPTER, unavailable

import personae

MEBIBYTE = 1024 * 1024
SAID = {
    "trigger_word": "zxq",
    "class_noun": "dog",
    "licence": "CC0-1.0",
    "consent": personae.Consent("Mia", "a comic", "form 7"),
    "new_version": True,
}


def test_a_file_is_sent_in_chunks_behind_everything_that_is_said_of_it(client, trainer, tmp_path):
    body = b"x" * (2 * MEBIBYTE + 1)
    (tmp_path / "mia.safetensors").write_bytes(body)
    made = client.import_adapter(tmp_path / "mia.safetensors", name="mia", base_model="toon-64", **SAID)
    assert made.name == ADAPTER
    (messages,) = trainer.requests["ImportAdapter"]
    header, *chunks = messages
    assert [len(message.chunk) for message in chunks] == [MEBIBYTE, MEBIBYTE, 1]
    assert (header.header.parent, header.header.adapter_id) == ("projects/default", "mia")
    assert (header.header.base_model, header.header.trigger_word) == ("toon-64", "zxq")
    assert (header.header.class_noun, header.header.licence, header.header.new_version) == ("dog", "CC0-1.0", True)
    consent = header.header.consent
    assert (consent.given_by, consent.purpose, consent.evidence) == ("Mia", "a comic", "form 7")


def test_an_import_is_sent_again_under_the_same_request_id(client, trainer):
    trainer.instead["ImportAdapter"] = [unavailable(), unavailable()]
    client.import_adapter(b"one", name="mia", base_model="toon-64")
    first, second, third = trainer.requests["ImportAdapter"]
    assert first == second == third
    assert first[0].header.request_id
    assert not first[0].header.HasField("consent")


def test_what_cannot_be_read_or_is_no_option_is_the_callers_own_error(client, trainer, tmp_path):
    with pytest.raises(FileNotFoundError):
        client.import_adapter(tmp_path / "missing", name="mia", base_model="toon-64")
    with pytest.raises(TypeError, match="rank"):
        client.import_adapter(b"one", name="mia", base_model="toon-64", rank=4)
    assert not trainer.requests["ImportAdapter"]


def test_the_command_prints_the_name_of_what_it_made(personae_command, trainer, tmp_path):
    (tmp_path / "mia.safetensors").write_bytes(b"x")
    options = ["--name", "mia", "--base-model", "toon-64", "--consent-given-by", "Mia", "--consent-purpose", "a comic"]
    code, out, _ = personae_command("import", tmp_path / "mia.safetensors", *options)
    assert (code, out) == (0, f"{ADAPTER}\n")
    ((header, _),) = trainer.requests["ImportAdapter"]
    assert header.header.consent.given_by == "Mia"
    code, _, err = personae_command("import", tmp_path / "missing", "--name", "mia", "--base-model", "toon-64")
    assert code == 1
    assert "No such file" in err
