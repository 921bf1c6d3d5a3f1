"""Deleting, by both clients and by the command: what is named, what is asked first, and what would go along."""

import io
import uuid

import pytest
from client_fakes import unavailable

import personae

CASES = [
    ("dataset", "d1", "projects/default/datasets/d1"),
    ("dataset", "projects/shop/datasets/d1", "projects/shop/datasets/d1"),
    ("training", "t1", "projects/default/trainings/t1"),
    ("adapter", "micah", "projects/default/adapters/micah"),
    ("adapter", "micah/versions/2", "projects/default/adapters/micah/versions/2"),
]


@pytest.mark.parametrize(("kind", "name", "full_name"), CASES)
def test_a_deletion_names_what_goes_and_can_be_repeated(client, trainer, kind, name, full_name):
    assert getattr(client, f"delete_{kind}")(name) is None
    (request,) = trainer.requests[f"Delete{kind.capitalize()}"]
    assert request.name == full_name
    uuid.UUID(request.request_id)


def test_what_is_held_can_be_deleted_as_it_is(client, trainer):
    client.delete_dataset(client.get_dataset("d1"))
    client.delete_adapter(client.get_adapter("micah/versions/2"))
    assert client.get_training("t1").delete() is None
    asked = [trainer.requests[f"Delete{kind}"][0].name for kind in ("Dataset", "Adapter", "Training")]
    assert asked == [
        "projects/default/datasets/d1",
        "projects/default/adapters/micah/versions/2",
        "projects/default/trainings/t1",
    ]


def test_a_deletion_that_was_cut_is_sent_again_with_the_same_request_id(client, trainer, pauses):
    trainer.instead["DeleteAdapter"] = [unavailable()]
    client.delete_adapter("micah")
    first, second = trainer.requests["DeleteAdapter"]
    assert first == second
    assert len(pauses) == 1


def test_the_images_of_an_adapter_come_from_all_pages(client, inference):
    images = list(client.images_of("micah/versions/1"))
    assert images == [
        personae.MadeImage("a" * 64, "default", "g1", ""),
        personae.MadeImage("b" * 64, "shop", "g2", "s3://bucket/b.png"),
    ]
    assert [request.parent for request in inference.requests["ListImages"]] == [
        "projects/default/adapters/micah/versions/1"
    ] * 2


def test_what_made_images_may_be_an_adapter_or_a_dataset(client, inference):
    for source in (client.get_adapter("micah"), client.get_dataset("d1"), "projects/p/datasets/d2"):
        list(client.images_of(source))
    parents = [request.parent for request in inference.requests["ListImages"]]
    assert parents[::2] == ["projects/default/adapters/micah", "projects/default/datasets/d1", "projects/p/datasets/d2"]


@pytest.mark.parametrize(
    ("name", "rpc", "full_name"),
    [
        ("datasets/d1", "DeleteDataset", "projects/default/datasets/d1"),
        ("trainings/t1", "DeleteTraining", "projects/default/trainings/t1"),
        ("adapters/micah/versions/2", "DeleteAdapter", "projects/default/adapters/micah/versions/2"),
        ("projects/shop/adapters/micah", "DeleteAdapter", "projects/shop/adapters/micah"),
    ],
)
def test_the_command_deletes_what_its_name_says(personae_command, trainer, name, rpc, full_name):
    code, out, err = personae_command("delete", name, "--yes")
    assert (code, out, err) == (0, "", f"deleted {full_name}\n")
    assert [request.name for request in trainer.requests[rpc]] == [full_name]


@pytest.mark.parametrize(("answer", "code", "asked"), [("y\n", 0, 1), ("n\n", 1, 0), ("", 1, 0)])
def test_the_command_says_what_goes_and_asks_first(personae_command, trainer, monkeypatch, answer, code, asked):
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    left, out, err = personae_command("delete", "datasets/d1")
    assert (left, out.strip()) == (code, "")
    assert "the adapters they made" in err
    assert len(trainer.requests.get("DeleteDataset", [])) == asked


@pytest.mark.parametrize("name", ["micah", "datasets/", "images/x", "projects/default", "projects/p/images/x"])
def test_the_command_refuses_what_is_no_such_name(personae_command, trainer, name):
    code, _, err = personae_command("delete", name, "--yes")
    assert code == 2
    assert "allowed is datasets/…, trainings/…, adapters/…" in err
    assert not trainer.requests
