"""Images as they finish; after a cut only what is missing."""

import pytest
from client_fakes import unavailable

import personae


def test_images_arrive_with_their_place_prompt_and_seed(client):
    images = list(client.generate(["a", "b"], seeds=[1, 2]))
    assert [(image.index, image.prompt, image.seed) for image in images] == [
        (3, "b", 2),
        (2, "b", 1),
        (1, "a", 2),
        (0, "a", 1),
    ]


def test_after_a_cut_only_the_missing_pairs_are_asked_for(client, inference):
    inference.cut_after = [2, 1]
    images = list(client.generate(["a", "b", "c"], seeds=[[1, 2], [3], [4, 5]]))
    assert sorted((image.index, image.prompt_index, image.content) for image in images) == [
        (0, 0, b"a/1"),
        (1, 0, b"a/2"),
        (2, 1, b"b/3"),
        (3, 2, b"c/4"),
        (4, 2, b"c/5"),
    ]
    asked = [
        [(prompt.text, list(prompt.seeds)) for prompt in request.prompts] for request in inference.requests["Generate"]
    ]
    assert asked == [[("a", [1, 2]), ("b", [3]), ("c", [4, 5])], [("a", [1, 2]), ("b", [3])], [("a", [1, 2])]]


def test_after_a_cut_the_drawn_seeds_and_settings_are_kept(client, inference):
    inference.cut_after = [1]
    images = list(client.generate("a", images_per_prompt=3))
    assert sorted(image.seed for image in images) == [100, 101, 102]
    again = inference.requests["Generate"][1]
    assert (list(again.prompts[0].seeds), again.steps) == ([100, 101], 20)


def test_the_same_pair_asked_for_twice_comes_twice(client, inference):
    inference.cut_after = [1]
    images = list(client.generate("a", seeds=[7, 7]))
    assert sorted(image.index for image in images) == [0, 1]


def test_a_server_that_is_restarting_is_asked_again(client, inference):
    inference.instead["Generate"] = [unavailable()]
    assert len(list(client.generate("a"))) == 1


def test_a_stream_that_keeps_breaking_exhausts_the_patience(connect, inference, inference_address):
    inference.cut_after = [1] + [0] * 1000
    patience = personae.Patience(outage_s=0.2, first_pause_s=0.05)
    with connect(inference=inference_address, patience=patience) as client:
        images = client.generate("a", seeds=[1, 2])
        assert next(images).index == 1
        with pytest.raises(personae.Unavailable):
            next(images)
    assert len(inference.requests["Generate"]) < 10


def test_adapters_are_named_by_id_by_name_or_with_a_weight(client, inference):
    full = "projects/other/adapters/x/versions/2"
    list(client.generate("a", adapter="micah", adapters=[full, ("style/versions/3", 0.5)]))
    adapters = inference.requests["Generate"][0].adapters
    assert [found.adapter for found in adapters] == [
        "projects/default/adapters/micah",
        full,
        "projects/default/adapters/style/versions/3",
    ]
    assert [found.weight if found.HasField("weight") else None for found in adapters] == [None, None, 0.5]


def test_a_request_is_that_of_the_clients_project(client, connect, inference, inference_address):
    theirs = "projects/theirs/adapters/x"
    list(client.generate("a", adapter=theirs))
    with connect(inference=inference_address, project="mine") as other:
        list(other.generate("a", adapter=theirs))
    assert [request.project for request in inference.requests["Generate"]] == ["default", "mine"]


def test_seeds_for_another_number_of_prompts_are_refused(client):
    with pytest.raises(personae.InvalidRequest, match="seeds"):
        client.generate(["a", "b", "c"], seeds=[[1], [2]])


def test_progress_counts_the_images_that_have_arrived(client):
    seen = []
    list(client.generate("a", seeds=[1, 2], on_progress=seen.append))
    assert [(progress.finished, progress.total) for progress in seen] == [(1, 2), (2, 2)]


def test_an_image_saves_the_bytes_as_they_came(client, tmp_path):
    (image,) = client.generate("a", seeds=[5])
    assert image.save(tmp_path / "a.png").read_bytes() == b"a/5"
    # What is no PNG is not shown as one; nobody wants to read a file's bytes.
    assert image._repr_png_() is None
    assert "a/5" not in repr(image)
