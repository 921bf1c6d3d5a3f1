"""A downloaded file is whole and proven, or not there."""

import client_fakes
import pytest

import personae


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
