"""Rows of the table of bad inputs that take more than one call: what is full, deleted, abandoned, or asked twice."""

import io
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from PIL import Image

from base_models.catalog import read_allow_list
from personae.v1 import dataset_pb2
from personae.v1 import inference_pb2 as inference
from personae.v1 import trainer_pb2 as pb
from personae.v1.training_pb2 import Training
from service_kit.names import AdapterVersionName
from tests.bad_inputs.case import refusal
from tests.bad_inputs.hostile_adapters import good_adapter
from tests.bad_inputs.world import CALL_S, PROJECT_TRAININGS, World, good_generation
from tests.bucket_adapters import publish
from tests.hostile_pictures import animation, bomb, encoded, picture, text_bomb
from tests.integration.trainer_calls import bundled_files, upload_messages

Code = grpc.StatusCode
ImageReport = dataset_pb2.ImageReport
REFUSED_PICTURES = {
    "60000x60000.png": (7, lambda: bomb(60_000, 1_500), ImageReport.REJECTION_PIXELS_EXCEEDED),
    "88-megapixels.png": (7, lambda: bomb(11_000, 8_000), ImageReport.REJECTION_PIXELS_EXCEEDED),
    "truncated.jpg": (8, lambda: encoded(picture(400, 300), "JPEG")[:2_000], ImageReport.REJECTION_TRUNCATED),
    "text.jpg": (9, lambda: b"not a picture", ImageReport.REJECTION_UNSUPPORTED_FORMAT),
    "zip.jpg": (9, lambda: b"PK\x03\x04" + b"\0" * 100, ImageReport.REJECTION_UNSUPPORTED_FORMAT),
    "svg.jpg": (9, lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", ImageReport.REJECTION_UNSUPPORTED_FORMAT),
    "program.jpg": (9, lambda: b"\x7fELF" + b"\0" * 100, ImageReport.REJECTION_UNSUPPORTED_FORMAT),
    "animated.webp": (10, lambda: animation("WEBP"), ImageReport.REJECTION_ANIMATED),
    "animated.png": (10, lambda: animation("PNG"), ImageReport.REJECTION_ANIMATED),
    "animated.gif": (10, lambda: animation("GIF"), ImageReport.REJECTION_UNSUPPORTED_FORMAT),
    "8x8.png": (12, lambda: encoded(picture(8, 8)), ImageReport.REJECTION_TOO_SMALL),
    "1x9000.png": (12, lambda: encoded(picture(1, 9_000)), ImageReport.REJECTION_ASPECT),
    "teal.png": (12, lambda: encoded(Image.new("RGB", (64, 64), "teal")), ImageReport.REJECTION_BLANK),
    "text-bomb.png": (13, text_bomb, ImageReport.REJECTION_METADATA_TOO_LARGE),
}
CONVERTED_PICTURES = {
    "cmyk.jpg": ("CMYK", lambda: encoded(picture(mode="CMYK"), "JPEG")),
    "palette.png": ("palette", lambda: encoded(picture(120, 90).rotate(90).quantize(32))),
    "grey.png": ("grey", lambda: encoded(picture(200, 150, "L"))),
}


def test_each_picture_that_cannot_be_used_is_reported_by_name_and_the_others_are_taken(world: World) -> None:
    name = world.new_dataset(0)
    files = {filename: make() for filename, (_, make, _) in REFUSED_PICTURES.items()}
    report = world.trainer("UploadImages", upload_messages(name, files | bundled_files(3))).dataset.report
    found = {image.filename: image.rejection for image in report.images if not image.accepted}
    assert found == {filename: rejection for filename, (_, _, rejection) in REFUSED_PICTURES.items()}
    assert all(image.detail for image in report.images if not image.accepted)
    assert report.accepted_count == 3


def test_a_training_runs_on_the_pictures_that_are_not_broken(world: World) -> None:
    report = world.trainer("GetDataset", pb.GetDatasetRequest(name=world.dataset)).dataset.report
    assert (report.accepted_count, report.rejected_count) == (3, 1)
    (broken,) = [image for image in report.images if not image.accepted]
    assert (broken.filename, broken.rejection) == ("broken.png", ImageReport.REJECTION_TRUNCATED)
    assert broken.detail
    training = world.trainer("GetTraining", pb.GetTrainingRequest(name=world.training)).training
    assert training.state == Training.State.STATE_SUCCEEDED


def test_pictures_in_other_modes_are_taken_and_converted(world: World) -> None:
    for filename, (mode, make) in CONVERTED_PICTURES.items():
        # Each on its own: they are nearly one picture.
        messages = upload_messages(world.new_dataset(0), {filename: make()})
        (image,) = world.trainer("UploadImages", messages).dataset.report.images
        assert image.accepted
        assert list(image.conversions) == [f"{mode} converted to RGB"]


@pytest.mark.parametrize("timeout_s", [-1.0, 0.001])
def test_a_deadline_that_is_past_or_hardly_begun_is_said_to_be_exceeded(world: World, timeout_s: float) -> None:
    found = refusal(lambda: world.inference("Generate", good_generation(steps=150), timeout_s=timeout_s))
    assert found.code is Code.DEADLINE_EXCEEDED


def test_a_picture_that_comes_twice_or_nearly_is_taken_once(world: World) -> None:
    name = world.new_dataset(0)
    (body,) = bundled_files(1).values()
    nearly = encoded(Image.open(io.BytesIO(body)).convert("RGB"), "JPEG", quality=90)
    report = world.trainer("UploadImages", upload_messages(name, {"a.png": body, "b.png": body, "c.jpg": nearly}))
    rejections = [image.rejection for image in report.dataset.report.images]
    assert rejections == [0, ImageReport.REJECTION_DUPLICATE, ImageReport.REJECTION_NEAR_DUPLICATE]


def test_the_same_request_id_with_the_same_body_is_the_same_training(world: World) -> None:
    again = world.trainer("CreateTraining", world.training_request).training
    assert again.name == world.training


def test_a_cancelled_training_may_be_cancelled_again_and_a_full_project_waits(world: World) -> None:
    requests = [world.request_for(f"queued-{index}", steps=5_000) for index in range(PROJECT_TRAININGS + 1)]
    names = [world.trainer("CreateTraining", request).training.name for request in requests[:-1]]
    try:
        found = refusal(lambda: world.trainer("CreateTraining", requests[-1]))
        assert (found.code, found.reason) == (Code.RESOURCE_EXHAUSTED, "PROJECT_TRAININGS")
        assert {"QuotaFailure", "RetryInfo"} <= found.details.keys()
        # What was accepted before is no new training.
        assert world.trainer("CreateTraining", requests[0]).training.name == names[0]
    finally:
        for name in names * 2:
            world.trainer("CancelTraining", pb.CancelTrainingRequest(name=name))
    for name in names:
        *_, last = world.trainer("WatchTraining", pb.WatchTrainingRequest(name=name), timeout_s=5 * CALL_S)
        assert last.event.ended.state == Training.State.STATE_CANCELLED


def test_a_full_queue_says_when_to_come_back_also_to_grpc_itself(world: World) -> None:
    calls = [world.inference("Generate", good_generation(8, steps=150), timeout_s=10 * CALL_S) for _ in range(2)]
    try:
        for call in calls:
            next(call)
        found = refusal(lambda: world.inference("Generate", good_generation()))
        # A project may hold half of what the server takes.
        assert (found.code, found.reason) == (Code.RESOURCE_EXHAUSTED, "PROJECT_QUEUE_FULL")
        assert "QuotaFailure" in found.details
        assert found.pushback == str(found.details["RetryInfo"].retry_delay.ToMilliseconds())
    finally:
        for call in calls:
            call.cancel()


def test_an_adapter_that_is_deleted_ends_its_generation_and_no_other(world: World) -> None:
    version = AdapterVersionName("default", f"doomed-{uuid.uuid4().hex[:8]}", 1)
    digest = read_allow_list(["toon-64"])["toon-64"].digest()
    publish(world.store.store, version, good_adapter(), base_model_digest=digest)
    wanted = [inference.AdapterWeight(adapter=str(version))]
    doomed = world.inference("Generate", good_generation(16, steps=150, adapters=wanted), timeout_s=10 * CALL_S)
    assert next(doomed).HasField("accepted")
    other = world.inference("Generate", good_generation(steps=150), timeout_s=10 * CALL_S)
    assert next(other).HasField("accepted")
    world.trainer("DeleteAdapter", pb.DeleteAdapterRequest(name=str(version)))
    assert refusal(lambda: doomed).code is Code.NOT_FOUND
    assert [*other][-1].HasField("done")
    again = refusal(lambda: world.inference("Generate", good_generation(adapters=wanted)))
    assert again.code is Code.NOT_FOUND


def test_hostile_metadata_configures_nothing_and_the_base_model_is_untouched(world: World) -> None:
    def digests(adapter: str) -> list[str]:
        wanted = [inference.AdapterWeight(adapter=f"projects/default/adapters/{adapter}")] if adapter else []
        messages = world.inference("Generate", good_generation(adapters=wanted, format=inference.IMAGE_FORMAT_PNG))
        return [message.image.digest for message in messages if message.HasField("image")]

    before = digests("")
    assert digests("loud")
    assert digests("") == before


def test_what_a_caller_abandons_is_not_carried_out(world: World) -> None:
    calls = [world.inference("Generate", good_generation(4, steps=150), timeout_s=10 * CALL_S) for _ in range(2)]
    for call in calls:
        next(call)
        call.cancel()
    while world.inference("GetServingInfo", inference.GetServingInfoRequest()).requests_open:
        pass
    info = world.inference("GetServingInfo", inference.GetServingInfoRequest())
    assert (info.images_waiting, info.cost_waiting) == (0, 0)


def test_fifty_equal_submits_at_once_are_one_training(world: World) -> None:
    request = world.request_for("fifty", steps=1)
    with ThreadPoolExecutor(50) as threads:
        answers = [*threads.map(lambda _: world.trainer("CreateTraining", request), range(50))]
    names = {answer.training.name for answer in answers}
    assert len(names) == 1
    *_, last = world.trainer("WatchTraining", pb.WatchTrainingRequest(name=names.pop()), timeout_s=5 * CALL_S)
    assert last.event.ended.state == Training.State.STATE_SUCCEEDED


@pytest.mark.parametrize("half", [b"", b"x" * 1_000])
def test_an_upload_that_its_client_abandons_leaves_nothing(world: World, half: bytes) -> None:
    name = world.new_dataset(0)
    messages = [*upload_messages(name, bundled_files(5))][:-1]

    def cut_off() -> Iterator[pb.UploadImagesRequest]:
        yield from messages
        if half:
            yield pb.UploadImagesRequest(chunk=half)
        raise ConnectionError

    refusal(lambda: world.trainer("UploadImages", cut_off()))
    report = world.trainer("GetDataset", pb.GetDatasetRequest(name=name)).dataset.report
    assert len(report.images) == 0
