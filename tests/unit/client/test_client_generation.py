"""Images as they finish; after a cut only what is missing."""

import hashlib
import io
from datetime import UTC, datetime

import grpc
import pytest
from client_fakes import fail, retry_info, unavailable
from google.rpc import error_details_pb2
from PIL import Image

import personae
from personae.generation import Generation
from personae.v1 import inference_pb2


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


def test_after_a_cut_a_full_server_is_waited_for(client, inference, pauses):
    info = error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="personae")
    inference.cut_after = [1]
    inference.instead["Generate"] = [
        lambda context: None,
        lambda context: fail(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "full", info, retry_info(0.75)),
    ]
    assert sorted(image.index for image in client.generate("a", seeds=[1, 2, 3])) == [0, 1, 2]
    assert (len(pauses), pauses[1]) == (2, 0.75)


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


DATASET_IMAGE = f"projects/default/datasets/d/images/{'a' * 64}"


def test_a_start_is_a_file_bytes_a_pillow_image_or_the_name_of_one_in_a_dataset(client, inference, tmp_path):
    (tmp_path / "start.webp").write_bytes(b"a file")
    mask = Image.new("L", (8, 8), 255)
    list(client.generate("a", start=tmp_path / "start.webp", strength=0.5))
    list(client.generate("a", start=str(tmp_path / "start.webp")))
    list(client.generate("a", start=b"bytes", mask=mask))
    list(client.generate("a", start=DATASET_IMAGE))
    list(client.generate("a"))
    sent = [request.start for request in inference.requests["Generate"]]
    assert [start.content or start.image for start in sent] == [b"a file", b"a file", b"bytes", DATASET_IMAGE, ""]
    assert [start.strength if start.HasField("strength") else None for start in sent] == [0.5, None, None, None, None]
    assert Image.open(io.BytesIO(sent[2].mask)).tobytes() == mask.tobytes()
    assert not inference.requests["Generate"][4].HasField("start")


def test_after_a_cut_the_picture_and_its_mask_are_sent_again(client, inference):
    inference.cut_after = [1]
    list(client.generate("a", seeds=[1, 2], start=b"picture", mask=b"mask", strength=0.7))
    again = inference.requests["Generate"][1]
    assert (again.start.content, again.start.mask, again.start.strength) == (b"picture", b"mask", 0.7)
    assert list(again.prompts[0].seeds) == [1]


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({"strength": 0.5, "mask": b"m"}, ["strength", "mask"]),
        ({"start": "no-such-file.png", "mask": "nor-this.png"}, ["start", "mask"]),
        ({"start": bytes(2**21), "mask": bytes(2**20 + 1)}, ["start"]),
        ({"start": b"picture", "mask": b""}, ["mask"]),
    ],
)
def test_a_start_that_cannot_be_sent_is_refused_before_anything_is(client, inference, given, fields):
    with pytest.raises(personae.InvalidRequest) as caught:
        client.generate("a", **given)
    assert [violation.field for violation in caught.value.violations] == fields
    assert not inference.requests["Generate"]


def test_previews_are_handed_on_as_they_come(client, inference):
    seen = []
    list(client.generate("a", seeds=[1, 2], on_preview=seen.append, preview_every=4))
    assert [(preview.index, preview.completed_steps) for preview in seen] == [(1, 4), (0, 4)]
    assert seen[0].picture().size == (3, 2)
    assert inference.requests["Generate"][0].preview_every == 4


def test_after_a_cut_previews_keep_the_places_of_their_images():
    seen = []
    generation = Generation(inference_pb2.GenerateRequest(), None, seen.append, personae.Patience())
    prompt = inference_pb2.GenerateRequest.Prompt(text="a", seeds=[1, 2])
    accepted = inference_pb2.GenerateResponse.Accepted(
        effective_request=inference_pb2.GenerateRequest(prompts=[prompt])
    )
    first_image = inference_pb2.GenerateResponse.Image(index=0, seed=1)
    preview = inference_pb2.GenerateResponse.Preview(index=0, completed_steps=3, content=b"x")
    generation.take(inference_pb2.GenerateResponse(accepted=accepted))
    generation.take(inference_pb2.GenerateResponse(image=first_image))
    # What is asked for again has one image, and the server counts from 0.
    assert list(generation.request().prompts[0].seeds) == [2]
    generation.take(inference_pb2.GenerateResponse(preview=preview))
    assert seen == [personae.Preview(index=1, completed_steps=3, content=b"x")]


def test_without_anybody_to_tell_no_previews_are_asked_for(client, inference):
    list(client.generate("a"))
    assert inference.requests["Generate"][0].preview_every == 0


def test_images_left_in_the_bucket_say_where_they_are(client):
    (image,) = client.generate("a", seeds=[5], delivery="bucket")
    assert (image.uri, image.content, image.filtered) == ("s3://bucket/5", b"", False)


def test_the_origin_of_a_file_is_asked_for_by_its_hash(client, inference, tmp_path):
    (image,) = client.generate("a", seeds=[5])
    content = b"a/5"
    path = tmp_path / "a.png"
    path.write_bytes(content)
    origin = client.look_up_image(content)
    assert origin == client.look_up_image(path) == client.look_up_image(str(path))
    client.look_up_image(image)
    assert {(request.digest, request.project) for request in inference.requests["LookUpImage"]} == {
        (hashlib.sha256(content).hexdigest(), "default")
    }
    assert (origin.generation, origin.create_time) == ("g1", datetime(1970, 1, 1, 0, 1, tzinfo=UTC))
    assert origin.adapters == (personae.AppliedAdapter("projects/default/adapters/micah/versions/1", 0.5, "ad"),)
    assert (origin.base_model, origin.base_model_digest) == ("m", "bd")
