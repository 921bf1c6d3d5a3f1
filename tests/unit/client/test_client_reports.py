"""A training's report on the caller's disk: where it lies, what the commands say of it, and what if there is none."""

import pytest
from client_fakes import ADAPTER, ended

import personae

HTML = b"<!doctype html>" + b"x" * 5000


@pytest.fixture
def trainer(trainer):
    """A server that names the version which an id stands for."""
    trainer.adapter.name = ADAPTER
    return trainer


@pytest.fixture
def reporting(trainer):
    """A server with an adapter that has a report."""
    trainer.files["report.html"] = HTML
    trainer.events = [ended(1)]
    return trainer


def test_a_report_lies_under_its_adapters_name_or_where_it_is_told(client, reporting, tmp_path):
    reporting.download_cuts = [2000]
    assert client.download_report("micah", tmp_path) == tmp_path / "micah-1.html"
    assert (tmp_path / "micah-1.html").read_bytes() == HTML
    adapter = client.get_adapter("micah")
    asked = len(reporting.requests["GetAdapter"])
    assert client.download_report(adapter, tmp_path / "mine.html").read_bytes() == HTML
    assert len(reporting.requests["GetAdapter"]) == asked
    assert {request.adapter for request in reporting.requests["ReadArtifact"]} == {ADAPTER}


def test_an_adapter_without_a_report_says_so_and_leaves_nothing(client, trainer, tmp_path):
    with pytest.raises(personae.NotFound):
        client.download_report("micah", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def opened(monkeypatch):
    """The addresses that a browser was given."""
    addresses = []
    monkeypatch.setattr("webbrowser.open", lambda address: addresses.append(address) or len(addresses) == 1)
    return addresses


def test_train_saves_the_report_and_says_where(personae_command, reporting, opened, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = personae_command("train", "projects/default/datasets/d1", "--name=micah")
    assert (code, out) == (0, f"{ADAPTER}\n")
    assert "how it went: micah-1.html" in err
    assert (tmp_path / "micah-1.html").read_bytes() == HTML
    assert opened == []


def test_train_opens_the_report_where_that_is_asked_for(personae_command, reporting, opened, tmp_path):
    path = tmp_path / "my [red] report.html"
    command = ("train", "projects/default/datasets/d1", "--name=micah", f"--report={path}", "--open")
    code, _, err = personae_command(*command)
    assert (code, opened) == (0, [path.as_uri()])
    assert str(path) in err
    _, _, err = personae_command(*command)
    assert "There is no browser to open it with." in err


@pytest.mark.parametrize("place", [None, "nowhere/micah.html"], ids=["there is none", "there is no such folder"])
def test_a_training_whose_report_cannot_be_saved_has_succeeded(personae_command, reporting, tmp_path, place):
    if place is None:
        del reporting.files["report.html"]
    path = tmp_path / (place or "")
    code, out, err = personae_command("train", "projects/default/datasets/d1", "--name=micah", f"--report={path}")
    assert (code, out) == (0, f"{ADAPTER}\n")
    assert "no report: " in err
    assert not list(tmp_path.iterdir())


def test_report_prints_the_path_alone(personae_command, reporting, opened, tmp_path):
    code, out, _ = personae_command("report", "micah", tmp_path, "--open")
    assert (code, out) == (0, f"{tmp_path / 'micah-1.html'}\n")
    assert opened == [(tmp_path / "micah-1.html").as_uri()]


def test_report_of_an_adapter_without_one_fails(personae_command, trainer, tmp_path):
    code, out, err = personae_command("report", "micah", tmp_path)
    assert code != 0
    assert out == ""
    assert "report.html" in err
