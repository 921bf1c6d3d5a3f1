"""ImportAdapter of a real service on a real object store, as a backend in another language would call it."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import personae
from personae.v1 import adapter_pb2
from personae.v1 import trainer_pb2 as pb
from tests.integration.trainer_calls import CALL_S, TrainerCalls, details, unique
from tests.lora_files import CONVOLUTION, LINEAR, file, kohya, own
from tests.service_process import ServiceProcess

Code = grpc.StatusCode
BODY = file(kohya(LINEAR))


def messages(body: bytes, **header: object) -> Iterator[pb.ImportAdapterRequest]:
    """An import's messages."""
    yield pb.ImportAdapterRequest(header=pb.ImportAdapterRequest.Header(**{"base_model": "toon-64"} | header))
    for start in range(0, len(body), 1000):
        yield pb.ImportAdapterRequest(chunk=body[start : start + 1000])


def bring(trainer: TrainerCalls, body: bytes = BODY, **header: object) -> adapter_pb2.Adapter:
    return trainer.stub.ImportAdapter(messages(body, **header), timeout=CALL_S).adapter


def refused(trainer: TrainerCalls, sent: Iterator[pb.ImportAdapterRequest]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        trainer.stub.ImportAdapter(sent, timeout=CALL_S)
    return caught.value


def test_an_import_is_an_adapter_that_is_listed_read_and_exported(trainer: TrainerCalls) -> None:
    adapter_id, request_id = unique("mia"), str(uuid.uuid4())
    made = bring(trainer, adapter_id=adapter_id, request_id=request_id, trigger_word="zxq", licence="MIT")
    assert made.name == f"projects/default/adapters/{adapter_id}/versions/1"
    assert (made.training, made.HasField("training_config"), made.trigger_word) == ("", False, "zxq")
    assert bring(trainer, adapter_id=adapter_id, request_id=request_id, trigger_word="zxq", licence="MIT") == made
    assert trainer.stub.GetAdapter(pb.GetAdapterRequest(name=made.name), timeout=CALL_S).adapter == made
    listed = trainer.stub.ListAdapters(pb.ListAdaptersRequest(page_size=1000), timeout=CALL_S).adapters
    assert made in listed
    assert len(trainer.adapter_file(made.name)) == made.artifacts[0].size_bytes
    export = pb.ExportAdapterRequest(name=made.name, format=adapter_pb2.ADAPTER_FORMAT_DIFFUSERS)
    assert trainer.stub.ExportAdapter(export, timeout=CALL_S).artifact.size_bytes > 0


def test_a_name_that_is_taken_and_a_request_id_that_was_used_say_so(trainer: TrainerCalls) -> None:
    adapter_id, request_id = unique("mia"), str(uuid.uuid4())
    bring(trainer, adapter_id=adapter_id, request_id=request_id)
    for body, said, reason in (
        (BODY, {"adapter_id": adapter_id}, "ALREADY_EXISTS"),
        (file(own(LINEAR)), {"adapter_id": adapter_id, "request_id": request_id}, "REQUEST_ID_REUSED"),
        (BODY, {"adapter_id": unique("joe"), "request_id": request_id}, "REQUEST_ID_REUSED"),
    ):
        error = refused(trainer, messages(body, **said))
        assert (error.code(), details(error)[0]) == (Code.ALREADY_EXISTS, reason)
        status, resource = rpc_status.from_call(error), error_details_pb2.ResourceInfo()
        assert status.details[1].Unpack(resource)
        assert resource.resource_type == "Adapter"
        assert resource.resource_name.startswith("projects/default/adapters/")
    assert bring(trainer, adapter_id=adapter_id, new_version=True).name.endswith("/versions/2")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "0 bytes are no safetensors file"),
        (BODY[:-1], "bytes behind its header"),
        (b"\x80\x04\x95" + bytes(100), "its header claims"),
        (file(own(CONVOLUTION, rank=200)), "unet.conv_in: rank 200; allowed is 1 to 128"),
        (file(own(LINEAR) | {"x" * 3000 + ".weight": own(LINEAR)[f"{LINEAR}.lora_A.weight"]}), "unknown key"),
    ],
    ids=["empty", "cut", "pickle", "rank", "unknown"],
)
def test_a_file_that_is_no_lora_is_refused_with_the_reason(trainer: TrainerCalls, body: bytes, words: str) -> None:
    adapter_id = unique("mia")
    error = refused(trainer, messages(body, adapter_id=adapter_id))
    assert (error.code(), details(error)[0]) == (Code.FAILED_PRECONDITION, "ADAPTER_INVALID")
    failure = error_details_pb2.PreconditionFailure()
    assert rpc_status.from_call(error).details[1].Unpack(failure)
    (violation,) = failure.violations
    assert (violation.type, violation.subject) == ("ADAPTER_INVALID", f"projects/default/adapters/{adapter_id}")
    assert words in violation.description
    # The name is free, and the service at work.
    assert bring(trainer, adapter_id=adapter_id).name.endswith("/versions/1")


def test_a_stream_out_of_order_names_every_field(trainer: TrainerCalls) -> None:
    wrong = messages(b"", base_model="other", adapter_id="A", trigger_word="a b", request_id="7")
    error = refused(trainer, wrong)
    fields = {f"header.{name}" for name in ("base_model", "adapter_id", "trigger_word", "request_id")}
    assert (error.code(), details(error)) == (Code.INVALID_ARGUMENT, ("INVALID_REQUEST", details(error)[1]))
    assert set(details(error)[1]) == fields
    for sent in (
        [],
        [pb.ImportAdapterRequest()],
        [pb.ImportAdapterRequest(chunk=b"x")],
        [*messages(b"", adapter_id="mia"), pb.ImportAdapterRequest(chunk=bytes(2**20 + 1))],
        [*messages(b"", adapter_id="mia"), *messages(b"", adapter_id="mia")],
    ):
        error = refused(trainer, iter(sent))
        assert (error.code(), details(error)[0]) == (Code.INVALID_ARGUMENT, "INVALID_REQUEST")


def test_a_caller_who_goes_away_half_way_leaves_the_name_free(trainer: TrainerCalls) -> None:
    adapter_id = unique("mia")

    def going_away() -> Iterator[pb.ImportAdapterRequest]:
        yield from messages(BODY[:1000], adapter_id=adapter_id)
        call.cancel()

    call = trainer.stub.ImportAdapter.future(going_away(), timeout=CALL_S)
    with pytest.raises(grpc.FutureCancelledError):
        call.result(timeout=CALL_S)
    assert bring(trainer, adapter_id=adapter_id).name.endswith("/versions/1")


def test_the_client_imports_what_it_exported(trainer_process: ServiceProcess, tmp_path: Path) -> None:
    with personae.Client(trainer=trainer_process.address) as client:
        consent = personae.Consent("Mia", "a comic", "form 7")
        first = client.import_adapter(BODY, name=unique("mia"), base_model="toon-64", consent=consent)
        assert first.consent == consent
        exported = client.export_adapter(first.name, "kohya", tmp_path)
        second = client.import_adapter(exported, name=unique("mia"), base_model="toon-64")
        assert second.artifacts[0].digest == first.artifacts[0].digest
        with pytest.raises(personae.PreconditionFailed) as caught:
            client.import_adapter(b"nothing", name=unique("mia"), base_model="toon-64")
        assert caught.value.reason == "ADAPTER_INVALID"
