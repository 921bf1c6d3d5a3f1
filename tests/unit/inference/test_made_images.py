"""Which images an adapter or a dataset made, over a real port: listed while there, gone after the deletion."""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from personae.v1 import inference_pb2 as pb
from service_kit import schema
from service_kit.names import AdapterVersionName, DatasetName, ProjectName
from service_kit.tombstone import Tombstone
from tests.bucket_adapters import publish
from tests.unit.inference.fake_serving import PATIENCE_S, FakeServing, ask, serve
from tests.unit.inference.picture_bytes import encoded, picture

HERO = AdapterVersionName("shop", "hero", 3)
STYLE = AdapterVersionName("default", "style", 1)
SHOTS = DatasetName("shop", "shots")


async def images_of(serving: FakeServing, parent: object, **page: object) -> list[pb.MadeImage]:
    request = pb.ListImagesRequest(parent=str(parent), **page)
    return list((await serving.stub.ListImages(request, timeout=PATIENCE_S)).images)


async def made(serving: FakeServing, request: pb.GenerateRequest) -> tuple[str, list[pb.GenerateResponse.Image]]:
    """The generation's name and its images."""
    messages = await serving.generate(request)
    images = [message.image for message in messages if message.HasField("image")]
    return messages[0].accepted.generation, images


def weights(*names: AdapterVersionName) -> list[pb.AdapterWeight]:
    return [pb.AdapterWeight(adapter=str(name)) for name in names]


def bury(serving: FakeServing, name: schema.Deletable) -> None:
    """What a deletion begins with."""
    tombstone = Tombstone(name=str(name), deleted_at=datetime.now(UTC), request_id="")
    serving.store.create(schema.tombstone(name), tombstone.to_json())


def run(folder: Path, scenario: Callable[[FakeServing], Awaitable[None]]) -> None:
    async def with_adapters(serving: FakeServing) -> None:
        publish(serving.store, HERO, b"hero")
        publish(serving.store, STYLE, b"style")
        await scenario(serving)

    serve(folder, with_adapters)


def test_each_adapter_lists_its_images_by_hash_with_where_they_lie(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        sent, (inline,) = await made(serving, ask(1, adapters=weights(HERO, STYLE)))
        kept, stored = await made(serving, ask(2, 3, adapters=weights(HERO), delivery=pb.IMAGE_DELIVERY_BUCKET))
        expected = [pb.MadeImage(digest=inline.digest, project="shop", generation=sent)]
        assert await images_of(serving, STYLE) == expected
        expected += [
            pb.MadeImage(digest=image.digest, project="shop", generation=kept, uri=image.uri) for image in stored
        ]
        assert await images_of(serving, HERO) == sorted(expected, key=lambda image: image.digest)
        assert await images_of(serving, AdapterVersionName("shop", "hero", 2)) == []

    run(tmp_path, scenario)


def test_the_pages_give_each_image_once_also_one_that_was_made_twice(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        generations = {(await made(serving, ask(1, 2, 3, adapters=weights(HERO))))[0] for _ in range(2)}
        token, seen = "", list[pb.MadeImage]()
        for _ in range(3):
            request = pb.ListImagesRequest(parent=str(HERO), page_size=2, page_token=token)
            page = await serving.stub.ListImages(request, timeout=PATIENCE_S)
            assert len(page.images) == 2
            seen.extend(page.images)
            token = page.next_page_token
        assert token == ""
        assert len({(image.digest, image.generation) for image in seen}) == 6
        assert {image.generation for image in seen} == generations
        assert [image.digest for image in seen] == sorted(image.digest for image in seen)

    run(tmp_path, scenario)


def test_an_entry_that_cannot_be_read_costs_the_list_nothing_else(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        await made(serving, ask(1, 2, adapters=weights(HERO)))
        lost, kept = await images_of(serving, HERO)
        entry, _ = serving.store.keys(schema.made_images_prefix(HERO))
        serving.store.put(entry, b"{")
        assert lost.digest in entry
        assert await images_of(serving, HERO) == [kept]

    run(tmp_path, scenario)


def test_a_dataset_lists_what_was_made_from_its_pictures(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        body = encoded(picture())
        digest = hashlib.sha256(body).hexdigest()
        serving.store.put(schema.dataset_image(SHOTS, digest), body)
        start = pb.StartPicture(image=f"{SHOTS}/images/{digest}")
        generation, (image,) = await made(serving, ask(1, start=start))
        assert await images_of(serving, SHOTS) == [
            pb.MadeImage(digest=image.digest, project="default", generation=generation)
        ]
        # A start that came along belongs to no dataset.
        await made(serving, ask(2, start=pb.StartPicture(content=body)))
        assert len(await images_of(serving, SHOTS)) == 1

    run(tmp_path, scenario)


def test_nothing_is_listed_of_what_was_deleted_and_the_ledger_still_knows_it(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        _, (image,) = await made(serving, ask(1, adapters=weights(HERO)))
        bury(serving, HERO)
        assert await images_of(serving, HERO) == []
        request = pb.LookUpImageRequest(digest=image.digest, project="shop")
        found = await serving.stub.LookUpImage(request, timeout=PATIENCE_S)
        assert [used.adapter for used in found.adapters] == [str(HERO)]

    run(tmp_path, scenario)


def test_an_image_of_an_adapter_that_is_deleted_while_it_is_drawn_does_not_stay_in_the_bucket(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        serving.engine.gate.clear()
        call = serving.stub.Generate(ask(1, adapters=weights(HERO), delivery=pb.IMAGE_DELIVERY_BUCKET))
        await serving.engine.begun.wait()
        bury(serving, HERO)
        serving.engine.gate.set()
        kinds: list[str | None] = []

        async def read() -> None:
            async for message in call:
                kinds.append(message.WhichOneof("kind"))

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read()
        assert "image" not in kinds
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        assert list(serving.store.keys(f"{ProjectName('shop')}/generations/")) == []
        # Whatever else was written is swept, even where the deletion's own last sweep is over.
        assert [key for key in serving.store.keys(schema.deletions_prefix()) if ".hero.3." in key]

    run(tmp_path, scenario)


def test_a_reserved_version_that_was_deleted_is_not_called_training(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        bury(serving, HERO)
        serving.store.delete(schema.adapter_manifest(HERO))
        serving.store.put(schema.adapter_reservation(HERO), b'{"training": "projects/shop/trainings/t"}')
        for name in (HERO, HERO.adapter_name):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await serving.generate(ask(1, adapters=[pb.AdapterWeight(adapter=str(name))]))
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND

    run(tmp_path, scenario)


def test_an_adapter_whose_file_went_with_its_deletion_is_missing_and_not_damaged(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        with pytest.raises(grpc.aio.AioRpcError, match="steps"):
            # Refused, but to find its base model the manifest was read, and is known from here on.
            await serving.generate(ask(1, adapters=weights(HERO), steps=0))
        bury(serving, HERO)
        for key in list(serving.store.keys(schema.folder(HERO))):
            if not key.endswith("tombstone.json"):
                serving.store.delete(key)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await serving.generate(ask(1, adapters=weights(HERO)))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "parent", ["", "projects/shop", str(HERO.adapter_name), f"{HERO}/x", "projects/a/datasets/../x"]
)
def test_everything_that_is_wrong_with_a_listing_is_said_at_once(tmp_path: Path, parent: str) -> None:
    async def scenario(serving: FakeServing) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await images_of(serving, parent, page_size=-1, page_token="../x")
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        for field in ("parent: found", "page_size: found -1", "page_token: found"):
            assert field in (caught.value.details() or "")

    run(tmp_path, scenario)
