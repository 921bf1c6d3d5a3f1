"""The grammar of an import stream, rule by rule and then in any order at all."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personae.v1 import dataset_pb2, trainer_pb2
from service_kit.adapter_manifest import ConsentEntry
from service_kit.errors import InvalidRequest, PreconditionUnmet
from tests.unit.trainer.import_calls import BASE_MODELS, BODY, CONSENT, MIA, ImportService, header, stream
from trainer_service import asked
from trainer_service.import_request import ImportChunk, ImportHeader, ImportPart, ImportStream
from trainer_service.upload import MAX_CHUNK_BYTES


def fed(*parts: ImportPart, max_bytes: int = 100) -> bytes:
    taken = ImportStream(BASE_MODELS, max_bytes)
    body = b"".join(taken.feed(part) for part in parts)
    assert taken.finish().adapter == MIA
    return body


def test_the_file_is_what_the_chunks_make_together() -> None:
    assert fed(header(), ImportChunk(b"ab"), ImportChunk(b""), ImportChunk(b"c")) == b"abc"
    assert fed(header()) == b""


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "the stream is empty"),
        ([ImportChunk(b"x")], "first message must be header"),
        ([header(), header()], "second header"),
        ([header(), ImportChunk(b"x"), header()], "second header"),
        ([header(adapter_id="")], r"header\.adapter_id"),
        ([header(base_model="")], r"header\.base_model: found ''; allowed is toon-64"),
        ([header(), ImportChunk(bytes(MAX_CHUNK_BYTES + 1))], "1,048,577 bytes; allowed are 1,048,576"),
    ],
)
def test_what_is_out_of_order_is_refused_in_words(parts: list[ImportPart], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        fed(*parts, max_bytes=2**30)


def test_a_file_that_is_too_large_is_refused_when_its_first_byte_too_many_comes() -> None:
    assert len(fed(header(), ImportChunk(bytes(60)), ImportChunk(bytes(40)))) == 100
    with pytest.raises(PreconditionUnmet, match="more than 100 bytes") as caught:
        fed(header(), ImportChunk(bytes(60)), ImportChunk(bytes(41)))
    assert (caught.value.reason, caught.value.subject) == ("ADAPTER_INVALID", str(MIA))


def test_a_message_says_everything_that_its_fields_say() -> None:
    message = trainer_pb2.ImportAdapterRequest.Header(
        parent="projects/p",
        adapter_id="mia",
        base_model="toon-64",
        trigger_word="zxq",
        new_version=True,
        request_id="7",
        class_noun="dog",
        licence="MIT",
        consent=dataset_pb2.Consent(given_by="Mia", purpose="a comic", evidence="form 7"),
    )
    said = ("projects/p", "mia", "toon-64", "zxq", True, "7", "dog", "MIT", CONSENT)
    assert asked.import_part(trainer_pb2.ImportAdapterRequest(header=message)) == ImportHeader(*said)
    assert asked.import_part(trainer_pb2.ImportAdapterRequest(chunk=b"x")) == ImportChunk(b"x")
    silent = trainer_pb2.ImportAdapterRequest.Header(adapter_id="mia", base_model="toon-64")
    assert asked.import_part(trainer_pb2.ImportAdapterRequest(header=silent)) == header()
    with pytest.raises(InvalidRequest, match="allowed is header or chunk"):
        asked.import_part(trainer_pb2.ImportAdapterRequest())


TEXTS = st.sampled_from(["", "mia", "toon-64", "\0", "a b", "x" * 300]) | st.text(max_size=10)
HEADERS = st.builds(
    header,
    parent=TEXTS,
    adapter_id=TEXTS,
    base_model=TEXTS,
    trigger_word=TEXTS,
    new_version=st.booleans(),
    request_id=TEXTS,
    class_noun=TEXTS,
    licence=TEXTS,
    consent=st.none() | st.builds(ConsentEntry, given_by=TEXTS, purpose=TEXTS, evidence=TEXTS),
)
CUTS = st.integers(0, len(BODY))
PIECES = st.builds(lambda first, last: ImportChunk(BODY[first:last]), CUTS, CUTS)
CHUNKS = PIECES | st.builds(ImportChunk, st.binary(max_size=30) | st.just(bytes(MAX_CHUNK_BYTES + 1)))
PARTS = st.sampled_from([header(), ImportChunk(BODY)]) | HEADERS | CHUNKS


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(st.lists(PARTS, max_size=6))
def test_any_stream_ends_in_an_adapter_or_in_a_documented_error_and_nothing(parts: list[Any]) -> None:
    service = ImportService()
    try:
        made = asyncio.run(service.importing.receive(stream(*parts)))
    except (InvalidRequest, PreconditionUnmet):
        assert service.stored() == []
    else:
        first, *chunks = parts
        assert isinstance(first, ImportHeader)
        assert b"".join(chunk.body for chunk in chunks) == BODY
        assert f"{made.name}".startswith("projects/default/adapters/")


@settings(max_examples=100, derandomize=True, database=None, deadline=None)
@given(st.lists(CUTS, max_size=8))
def test_however_a_file_is_cut_into_chunks_it_is_the_same_file(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(BODY)]
    chunks = [ImportChunk(BODY[first:last]) for first, last in pairwise(places)]
    assert fed(header(), *chunks, max_bytes=len(BODY)) == BODY
