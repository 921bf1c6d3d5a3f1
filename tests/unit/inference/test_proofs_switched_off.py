"""What the checks are for: each is switched off, and the damage that it prevents is seen."""

import contextlib
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_serving import FakeServing, ask, ask_with_adapter, serve

from personae.v1 import inference_pb2 as pb
from service_kit import schema
from service_kit.names import AdapterVersionName
from service_kit.store import StoreUnavailable
from tests.bucket_adapters import publish

V1 = AdapterVersionName("default", "hero", 1)


async def _status(serving: FakeServing, request: pb.GenerateRequest) -> grpc.StatusCode:
    try:
        await serving.generate(request)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("is_checked", [True, False])
def test_the_hash_check_is_what_keeps_a_flipped_byte_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_checked: bool
) -> None:
    async def scenario(serving: FakeServing) -> None:
        digest = publish(serving.store, V1, b"an adapter")
        serving.store.put(schema.adapter_blob(V1, digest), b"an adaptes")
        expected = grpc.StatusCode.DATA_LOSS if is_checked else grpc.StatusCode.OK
        assert await _status(serving, ask_with_adapter(V1)) is expected

    def unchecked(digest: str, body: bytes, parse: Any) -> tuple[Any]:
        return (parse(body),)

    if not is_checked:
        monkeypatch.setattr("inference_service.adapter_cache._parse_if", unchecked)
    serve(tmp_path, scenario)


@pytest.mark.parametrize("is_noted_first", [True, False])
def test_noting_an_image_first_is_what_keeps_unknown_images_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_noted_first: bool
) -> None:
    def away(*arguments: Any) -> None:
        raise StoreUnavailable("away")

    async def scenario(serving: FakeServing) -> None:
        images = []
        call = serving.stub.Generate(ask(1), timeout=10)
        with contextlib.suppress(grpc.aio.AioRpcError):
            while (message := await call.read()) is not grpc.aio.EOF:
                images += [message.image] if message.HasField("image") else []
        assert (await call.code() is grpc.StatusCode.UNAVAILABLE) is is_noted_first
        assert bool(images) is not is_noted_first
        for image in images:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await serving.stub.LookUpImage(pb.LookUpImageRequest(digest=image.digest))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    monkeypatch.setattr("inference_service.ledger.Ledger.note", away if is_noted_first else lambda *arguments: None)
    serve(tmp_path, scenario)
