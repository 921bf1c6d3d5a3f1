"""A downloaded or exported file is whole and proven, or not there."""

import client_fakes
import pytest

import personae
from personae.v1 import adapter_pb2


def test_a_download_goes_on_where_it_was_cut(client, trainer, tmp_path):
    trainer.download_cuts = [0, 3000]
    path = client.download_adapter("micah", tmp_path)
    assert path == tmp_path / "adapter.safetensors"
    assert path.read_bytes() == client_fakes.WEIGHTS
    assert [request.read_offset for request in trainer.requests["ReadArtifact"]] == [0, 1000, 4000]


def test_a_continued_download_keeps_to_the_version_it_began_with(client, trainer, tmp_path):
    trainer.download_cuts = [0]
    client.download_adapter("micah", tmp_path / "mine.safetensors")
    names = [request.adapter for request in trainer.requests["ReadArtifact"]]
    assert names == ["projects/default/adapters/micah", client_fakes.ADAPTER]


def test_a_damaged_download_leaves_nothing_behind(client, trainer, tmp_path):
    trainer.digest = "0" * 64
    with pytest.raises(personae.Corrupted):
        client.download_adapter("micah", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def exporting(trainer):
    """A server that exports an adapter, with its model card."""
    trainer.files |= {"exports/adapter": b"weights" * 500, "exports/card": b"# Micah"}
    return trainer


def test_an_export_lies_under_the_adapters_name_with_its_model_card_beside_it(client, exporting, tmp_path):
    path = client.export_adapter("micah", "kohya", tmp_path)
    assert path == tmp_path / "micah-1.safetensors"
    assert path.read_bytes() == exporting.files["exports/adapter"]
    assert (tmp_path / "micah-1.md").read_bytes() == b"# Micah"
    (request,) = exporting.requests["ExportAdapter"]
    assert request.name == "projects/default/adapters/micah"
    assert request.format == adapter_pb2.ADAPTER_FORMAT_KOHYA
    # The version that was exported, also where the latest was asked for and a newer one is born meanwhile.
    assert {request.adapter for request in exporting.requests["ReadArtifact"]} == {client_fakes.ADAPTER}


def test_an_export_goes_where_it_is_told(client, exporting, tmp_path):
    path = client.export_adapter("micah", "diffusers", tmp_path / "mine.safetensors")
    assert path == tmp_path / "mine.safetensors"
    assert {found.name for found in tmp_path.iterdir()} == {"mine.safetensors", "mine.md"}
    assert exporting.requests["ExportAdapter"][0].format == adapter_pb2.ADAPTER_FORMAT_DIFFUSERS


def test_an_unknown_format_is_refused_before_anything_is_sent(client, trainer, tmp_path):
    with pytest.raises(personae.InvalidRequest, match="diffusers, kohya"):
        client.export_adapter("micah", "onnx", tmp_path)
    assert not trainer.requests
