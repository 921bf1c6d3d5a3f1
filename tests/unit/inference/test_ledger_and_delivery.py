"""InferenceService over a real port with a fake engine: previews, where images go, and how they are found again."""

import hashlib
import io
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from personae.v1 import inference_pb2 as pb
from service_kit.memory_store import MemoryStore
from service_kit.names import AdapterVersionName
from service_kit.store import StoreUnavailable
from tests.bucket_adapters import publish
from tests.unit.inference.fake_serving import MADE_AT, PATIENCE_S, FakeServing, ask, serve

HERO = AdapterVersionName("shop", "hero", 3)
STYLE = AdapterVersionName("default", "style", 1)


async def _one_image(serving: FakeServing, request: pb.GenerateRequest) -> tuple[str, pb.GenerateResponse.Image]:
    """The generation's name and its only image."""
    messages = await serving.generate(request)
    (image,) = [message.image for message in messages if message.HasField("image")]
    return messages[0].accepted.generation, image


async def _look_up(serving: FakeServing, digest: str, project: str = "") -> pb.LookUpImageResponse:
    request = pb.LookUpImageRequest(digest=digest, project=project)
    answer: pb.LookUpImageResponse = await serving.stub.LookUpImage(request, timeout=PATIENCE_S)
    return answer


async def _refused(serving: FakeServing, digest: str, project: str = "") -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _look_up(serving, digest, project)
    return caught.value.code(), caught.value.details() or ""


def test_previews_come_as_small_jpeg_files_where_they_were_asked_for(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        previews = []
        async for message in serving.stub.Generate(ask(1, 2, steps=7, preview_every=3), timeout=PATIENCE_S):
            if message.HasField("accepted"):
                assert message.accepted.effective_request.preview_every == 3
            if message.HasField("preview"):
                previews.append(message.preview)
                serving.engine.gate.set()
        assert [(preview.index, preview.completed_steps) for preview in previews] == [(0, 3), (0, 6), (1, 3), (1, 6)]
        for preview in previews:
            assert Image.open(io.BytesIO(preview.content), formats=("JPEG",)).size == (24, 16)
        kinds = {message.WhichOneof("kind") for message in await serving.generate(ask(1, steps=7))}
        assert "preview" not in kinds

    serve(tmp_path, scenario)


def test_a_picture_is_found_by_the_hash_of_its_file(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        digests = [publish(serving.store, HERO, b"hero"), publish(serving.store, STYLE, b"style")]
        adapters = [pb.AdapterWeight(adapter=str(HERO)), pb.AdapterWeight(adapter=str(STYLE), weight=-0.5)]
        generation, image = await _one_image(serving, ask(1, adapters=adapters))
        found = await _look_up(serving, hashlib.sha256(image.content).hexdigest(), "shop")
        assert (found.generation, found.create_time.ToDatetime(MADE_AT.tzinfo)) == (generation, MADE_AT)
        assert [(used.adapter, used.weight, used.digest) for used in found.adapters] == [
            (str(HERO), 1.0, digests[0]),
            (str(STYLE), -0.5, digests[1]),
        ]
        assert (found.base_model, found.base_model_digest) == ("toon-64", "d" * 64)

    serve(tmp_path, scenario)


def test_the_ledger_holds_no_prompt(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        await _one_image(serving, ask(1, negative_prompt="a blue scarf"))
        (key,) = serving.store.keys("projects/default/images/")
        entry = serving.store.get(key).body
        assert b"red hat" not in entry
        assert b"scarf" not in entry

    serve(tmp_path, scenario)


def test_the_same_file_made_twice_is_the_first_generations(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        first, image = await _one_image(serving, ask(1))
        second, again = await _one_image(serving, ask(1))
        assert (first == second, image.digest) == (False, again.digest)
        assert (await _look_up(serving, image.digest)).generation == first

    serve(tmp_path, scenario)


def test_what_was_not_made_here_or_for_others_is_not_found(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        _, image = await _one_image(serving, ask(1))
        code, text = await _refused(serving, image.digest, "shop")
        assert code == grpc.StatusCode.NOT_FOUND
        assert text == (await _refused(serving, "0" * 64, "shop"))[1].replace("0" * 64, image.digest)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _look_up(serving, "0" * 64)
        status, resource = rpc_status.from_call(caught.value), error_details_pb2.ResourceInfo()
        assert status is not None
        assert status.details[1].Unpack(resource)
        assert (resource.resource_type, resource.resource_name) == ("Image", f"projects/default/images/{'0' * 64}")

    serve(tmp_path, scenario)


@pytest.mark.parametrize("digest", ["", "../x", "A" * 64, "0" * 63, "0" * 64 + "\n", "é" * 64])
def test_what_is_no_hash_is_refused_together_with_the_project(tmp_path: Path, digest: str) -> None:
    async def scenario(serving: FakeServing) -> None:
        code, text = await _refused(serving, digest, "../shop")
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert "digest: found" in text
        assert "project: found" in text

    serve(tmp_path, scenario)


def test_a_damaged_entry_is_data_loss(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        _, image = await _one_image(serving, ask(1))
        (key,) = serving.store.keys("projects/default/images/")
        serving.store.put(key, b"{")
        assert (await _refused(serving, image.digest))[0] == grpc.StatusCode.DATA_LOSS

    serve(tmp_path, scenario)


@pytest.mark.parametrize(("image_format", "suffix"), [(pb.IMAGE_FORMAT_PNG, "png"), (pb.IMAGE_FORMAT_JPEG, "jpeg")])
def test_images_for_the_bucket_lie_there_when_their_message_comes(
    tmp_path: Path, image_format: pb.ImageFormat.ValueType, suffix: str
) -> None:
    async def scenario(serving: FakeServing) -> None:
        request = ask(5, delivery=pb.IMAGE_DELIVERY_BUCKET, format=image_format)
        generation, image = await _one_image(serving, request)
        key = f"projects/default/generations/{generation}/0000.{suffix}"
        assert (image.content, image.uri) == (b"", f"s3://bucket-1/{key}")
        file = serving.store.get(key).body
        assert image.digest == hashlib.sha256(file).hexdigest()
        picture = Image.open(io.BytesIO(file))
        assert (picture.size, picture.get_format_mimetype()) == ((image.width, image.height), image.media_type)
        assert (await _look_up(serving, image.digest)).generation == generation

    serve(tmp_path, scenario)


class FullStore(MemoryStore):
    """Takes nothing under keys that hold `refused`."""

    refused = ""

    def put(self, key: str, body: bytes) -> None:
        self._refuse(key)
        super().put(key, body)

    def create(self, key: str, body: bytes) -> str:
        self._refuse(key)
        return super().create(key, body)

    def _refuse(self, key: str) -> None:
        if self.refused in key:
            raise StoreUnavailable("507 Insufficient Storage")


@pytest.mark.parametrize("refused", ["/images/", "/generations/"])
def test_no_image_leaves_while_the_store_takes_nothing(tmp_path: Path, refused: str) -> None:
    bucket = FullStore()

    async def scenario(serving: FakeServing) -> None:
        bucket.refused = refused
        seen: list[str | None] = []

        async def read() -> None:
            async for message in serving.stub.Generate(request, timeout=PATIENCE_S):
                seen.append(message.WhichOneof("kind"))

        request = ask(1, 2, delivery=pb.IMAGE_DELIVERY_BUCKET)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read()
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "accepted" in seen
        assert "image" not in seen
        assert list(bucket.keys("projects/default/images/")) == []
        bucket.refused = "none"
        assert len([m for m in await serving.generate(request) if m.HasField("image")]) == 2

    serve(tmp_path, scenario, bucket=bucket)
