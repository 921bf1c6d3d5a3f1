"""Starting from a picture, over a real port with a fake engine: what is taken, what is refused, what is told."""

import hashlib
import io
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from PIL import Image

from inference_service.start_pictures import MAX_BYTES
from personae.v1 import inference_pb2 as pb
from service_kit import schema
from service_kit.memory_store import MemoryStore
from service_kit.names import DatasetImageName, DatasetName
from service_kit.store import StoredObject
from tests.unit.inference.fake_serving import FakeServing, ask, refusal_of, serve
from tests.unit.inference.picture_bytes import encoded, left_half, picture, png_bomb

PICTURE, MASK = encoded(picture()), encoded(left_half())
STORED = DatasetImageName(DatasetName("p", "d"), hashlib.sha256(PICTURE).hexdigest())
KEY = schema.dataset_image(STORED.dataset, STORED.digest)


def _animated() -> bytes:
    return encoded(picture(), "WEBP", save_all=True, append_images=[picture().transpose(Image.Transpose.ROTATE_90)])


def test_the_engine_gets_the_pixels_and_the_caller_the_settings(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        start = pb.StartPicture(content=PICTURE, mask=MASK, strength=0.5)
        messages = await serving.generate(ask(7, steps=6, start=start))
        (request,) = serving.engine.requests
        assert request.start is not None
        assert request.start.mask_HW is not None
        assert np.array_equal(request.start.picture_HWC, np.asarray(picture()))
        assert np.array_equal(request.start.mask_HW[0], [1.0] * 32 + [0.0] * 32)
        assert messages[0].accepted.effective_request.start == pb.StartPicture(strength=0.5)
        assert {m.progress.total_steps for m in messages if m.HasField("progress")} == {3}
        (image,) = (m.image for m in messages if m.HasField("image"))
        made_of = Image.open(io.BytesIO(image.content)).info
        assert made_of["strength"] == "0.5"
        assert made_of["start_digest"] == hashlib.sha256(PICTURE).hexdigest()
        assert made_of["mask_digest"] == hashlib.sha256(MASK).hexdigest()

    serve(tmp_path, scenario)


def test_a_picture_of_a_dataset_is_read_off_the_event_loop(tmp_path: Path) -> None:
    class WatchedStore(MemoryStore):
        def get(self, key: str) -> StoredObject:
            readers.append(threading.get_ident())
            return super().get(key)

    async def scenario(serving: FakeServing) -> None:
        messages = await serving.generate(ask(7, start=pb.StartPicture(image=str(STORED))))
        (request,) = serving.engine.requests
        assert request.start is not None
        assert np.array_equal(request.start.picture_HWC, np.asarray(picture()))
        # The server said all that there is to say of it, so it can be asked for again as it is.
        effective = messages[0].accepted.effective_request
        assert effective.start == pb.StartPicture(image=str(STORED), strength=0.8)
        assert (await serving.generate(effective))[0].accepted.effective_request == effective
        assert readers
        assert threading.get_ident() not in readers

    readers: list[int] = []
    store = WatchedStore()
    store.put(KEY, PICTURE)
    serve(tmp_path, scenario, bucket=store)


@pytest.mark.parametrize(
    ("start", "field", "said"),
    [
        (pb.StartPicture(content=bytes(MAX_BYTES + 1)), "start.content", "at most 3145728 together"),
        (pb.StartPicture(content=PICTURE, mask=bytes(MAX_BYTES)), "start.content", "at most 3145728 together"),
        (pb.StartPicture(content=PICTURE[:-100]), "start.content", "cannot be decoded"),
        (pb.StartPicture(content=PICTURE[:20]), "start.content", "its header cannot be read"),
        (pb.StartPicture(content=png_bomb(9_000)), "start.content", "81,000,000 pixels; allowed are 16,777,216"),
        (pb.StartPicture(content=png_bomb(60_000)), "start.content", "allowed are 16,777,216 pixels"),
        (pb.StartPicture(content=_animated()), "start.content", "found 2 frames"),
        (pb.StartPicture(content=encoded(picture(), "GIF")), "start.content", "not a JPEG, PNG or WebP file"),
        (pb.StartPicture(content=PICTURE, mask=png_bomb(9_000)), "start.mask", "allowed are 16,777,216"),
        (pb.StartPicture(content=PICTURE, mask=encoded(left_half(64, 32))), "start.mask", "found 64 x 32"),
        (pb.StartPicture(content=PICTURE, mask=encoded(left_half(), "JPEG")), "start.mask", "not a PNG file"),
        (pb.StartPicture(content=PICTURE, mask=encoded(Image.new("L", (64, 64)))), "start.mask", "white nowhere"),
        (pb.StartPicture(image="https://example.org/a.png"), "start.image", "found 'https://example.org/a.png'"),
        (pb.StartPicture(image="file:///etc/passwd"), "start.image", "found 'file:///etc/passwd'"),
        (pb.StartPicture(image=f"projects/p/datasets/../x/images/{'0' * 64}"), "start.image", "allowed is"),
        (pb.StartPicture(content=PICTURE, strength=0.1), "start.strength", "of 2 steps runs none; allowed is 0.5"),
        (pb.StartPicture(strength=0.5, mask=MASK), "start", "found no picture"),
    ],
)
def test_a_start_that_cannot_be_used_is_refused_by_its_field(
    tmp_path: Path, start: pb.StartPicture, field: str, said: str
) -> None:
    async def scenario(serving: FakeServing) -> None:
        code, _, bad_request = await refusal_of(serving, ask(1, start=start), error_details_pb2.BadRequest)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert [violation.field for violation in bad_request.field_violations] == [field]
        assert said in bad_request.field_violations[0].description
        await serving.generate(ask(1, start=pb.StartPicture(content=PICTURE)))

    serve(tmp_path, scenario)


def test_a_start_is_refused_together_with_all_else(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        start = pb.StartPicture(content=b"text", strength=2, mask=b"text")
        request = ask(1, steps=0, width=-8, start=start)
        _, _, bad_request = await refusal_of(serving, request, error_details_pb2.BadRequest)
        assert {violation.field for violation in bad_request.field_violations} == {
            "steps",
            "width",
            "start.content",
            "start.strength",
            "start.mask",
        }

    serve(tmp_path, scenario)


def test_a_picture_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        serving.store.put(KEY, PICTURE)
        for name in (
            DatasetImageName(STORED.dataset, "0" * 64),
            DatasetImageName(DatasetName("other", "d"), STORED.digest),
            DatasetImageName(DatasetName("p", "other"), STORED.digest),
        ):
            request = ask(1, start=pb.StartPicture(image=str(name)))
            code, _, resource = await refusal_of(serving, request, error_details_pb2.ResourceInfo)
            assert code == grpc.StatusCode.NOT_FOUND
            assert (resource.resource_type, resource.resource_name) == ("DatasetImage", str(name))

    serve(tmp_path, scenario)


def test_a_stored_picture_without_its_hash_is_data_loss(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        serving.store.put(KEY, PICTURE[:-100])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await serving.generate(ask(1, start=pb.StartPicture(image=str(STORED))))
        assert caught.value.code() == grpc.StatusCode.DATA_LOSS
        assert serving.engine.computed == []

    serve(tmp_path, scenario)
