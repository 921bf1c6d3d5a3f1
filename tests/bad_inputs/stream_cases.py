"""What a TrainerService refuses of streams: uploads of pictures, imports of adapters."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc

from personae.v1 import trainer_pb2 as pb
from tests.bad_inputs.case import Case
from tests.bad_inputs.hostile_adapters import HOSTILE_ADAPTERS
from tests.bad_inputs.world import CONSENT, World

Code = grpc.StatusCode
Upload, Import = pb.UploadImagesRequest, pb.ImportAdapterRequest
BAD_UPLOAD_BYTES = 52_428_801
MAX_PICTURES = 1_000
CHUNK_BYTES = 2**20


def upload(world: World, *parts: Upload) -> object:
    """An upload of these messages."""
    return world.trainer("UploadImages", iter(parts))


def header(world: World) -> Upload:
    """The first message of an upload to a dataset that exists."""
    return Upload(header=Upload.Header(dataset=world.dataset))


def announced(filename: str = "a.png", size_bytes: int = 3, caption: str = "") -> Upload:
    """Announces a picture."""
    return Upload(image=Upload.Image(filename=filename, size_bytes=size_bytes, caption=caption))


def too_many_pictures(world: World) -> object:
    """One picture more than a dataset may have, each of one byte."""

    def messages() -> Iterator[Upload]:
        yield header(world)
        for index in range(MAX_PICTURES):
            yield announced(f"{index}.png", 1)
            yield Upload(chunk=b"x")
        yield announced("one-too-many.png", 1)

    return world.trainer("UploadImages", messages())


def bring(world: World, body: bytes, **wrong: Any) -> object:
    """An import of a file; `wrong` are fields of its header."""

    def messages() -> Iterator[Import]:
        right = {"adapter_id": "brought", "base_model": "toon-64", "consent": CONSENT}
        yield Import(header=Import.Header(**(right | wrong)))
        for start in range(0, len(body), CHUNK_BYTES):
            yield Import(chunk=body[start : start + CHUNK_BYTES])

    return world.trainer("ImportAdapter", messages())


def _not_brought(what: str, make: Callable[[], bytes], repeats: int) -> Case:
    return Case(
        30,
        f"an import of a file {what}",
        lambda world: bring(world, make()),
        Code.FAILED_PRECONDITION,
        "ADAPTER_INVALID",
        details=("PreconditionFailure",),
        repeats=repeats,
    )


def _out_of_order(row: int, what: str, send: Callable[[World], object], *fields: str) -> Case:
    return Case(row, what, send, Code.INVALID_ARGUMENT, "INVALID_REQUEST", frozenset(fields))


CASES = [
    Case(
        2,
        "a picture of more bytes than the limit",
        lambda world: upload(world, header(world), announced(size_bytes=BAD_UPLOAD_BYTES)),
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        frozenset({"image.size_bytes"}),
        says=("52,428,800",),
    ),
    Case(
        2,
        "more pictures than the limit",
        too_many_pictures,
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        frozenset({"image"}),
        says=("1,000",),
        repeats=2,
    ),
    Case(
        6,
        "a URL for a picture",
        lambda world: upload(world, header(world), announced("https://example.org/a.png")),
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        frozenset({"image.filename"}),
        says=("not fetched",),
    ),
    *(
        _out_of_order(
            25,
            f"an upload with {what}",
            lambda world, parts=parts: upload(world, *(header(world) if part is None else part for part in parts)),
            field,
        )
        for what, parts, field in [
            ("nothing in it", [], "header"),
            ("no header", [Upload(chunk=b"x")], "header"),
            ("a picture before its header", [announced()], "header"),
            ("a message that says nothing", [None, Upload()], "part"),
            ("two headers", [None, None], "header"),
            ("a chunk that belongs to nothing", [None, Upload(chunk=b"x")], "chunk"),
            ("a chunk after the end", [None, announced(), Upload(chunk=b"abc"), Upload(chunk=b"d")], "chunk"),
            ("fewer bytes than announced", [None, announced(), Upload(chunk=b"ab")], "chunk"),
            (
                "a chunk of more than a megabyte",
                [None, announced(size_bytes=2**21), Upload(chunk=b"x" * 2**21)],
                "chunk",
            ),
        ]
    ),
    _out_of_order(
        25,
        "an import whose header is wrong everywhere",
        lambda world: bring(
            world, b"", adapter_id="A", base_model="other", trigger_word="a b", request_id="7", licence="x" * 201
        ),
        *(f"header.{name}" for name in ("adapter_id", "base_model", "trigger_word", "request_id", "licence")),
    ),
    *(
        _out_of_order(
            25, f"an import with {what}", lambda world, parts=parts: world.trainer("ImportAdapter", iter(parts)), field
        )
        for what, parts, field in [
            ("nothing in it", [], "header"),
            ("no header", [Import(chunk=b"x")], "header"),
            ("a message that says nothing", [Import()], "part"),
        ]
    ),
    Case(
        17,
        "an import without consent",
        lambda world: bring(world, b"", consent=None),
        Code.FAILED_PRECONDITION,
        "CONSENT_REQUIRED",
        details=("PreconditionFailure",),
    ),
    *(
        # One of them is 90 MB long.
        _not_brought(what, make, repeats=2 if "90 MB" in what else 200)
        for what, make in HOSTILE_ADAPTERS.items()
    ),
]
