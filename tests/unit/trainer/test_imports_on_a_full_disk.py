"""A full disk under the folder where imported files wait, a real one: the caller may come back, and nothing is left."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from personae.v1 import adapter_pb2
from personae.v1 import trainer_pb2 as pb
from personae.v1.trainer_pb2_grpc import TrainerServiceStub, add_TrainerServiceServicer_to_server
from service_kit.error_status import ErrorInterceptor
from service_kit.lingering import LingerInterceptor
from tests.lora_files import LINEAR, file, kohya
from tests.small_disk import SMALL_DISK_BYTES, small_disk
from tests.unit.trainer.served_trainer import trainer_servicer
from tests.unit.trainer.trainer_fakes import Trainer

CALL_S = 30.0
CHUNK_BYTES = 100_000
GOOD = file(kohya(LINEAR))
Answer = adapter_pb2.Adapter | grpc.aio.AioRpcError


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files of this process."""
    with small_disk(tmp_path / "disk") as mounted:
        monkeypatch.setenv("TMPDIR", str(mounted))
        # As in a process that has not made a temporary file yet.
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield mounted


def bring(trainer: Trainer, *bodies: bytes) -> list[Answer]:
    """Import files as the same adapter, one after another, over a loopback port; answers, or how each was refused."""

    async def messages(body: bytes) -> AsyncIterator[pb.ImportAdapterRequest]:
        header = pb.ImportAdapterRequest.Header(adapter_id="mia", base_model="toon-64")
        yield pb.ImportAdapterRequest(header=header)
        for start in range(0, len(body), CHUNK_BYTES):
            yield pb.ImportAdapterRequest(chunk=body[start : start + CHUNK_BYTES])

    async def answer(stub: TrainerServiceStub, body: bytes) -> Answer:
        try:
            return (await stub.ImportAdapter(messages(body), timeout=CALL_S)).adapter
        except grpc.aio.AioRpcError as error:
            return error

    async def serve() -> list[Answer]:
        server = grpc.aio.server(interceptors=[ErrorInterceptor(), LingerInterceptor()])
        add_TrainerServiceServicer_to_server(trainer_servicer(trainer), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            answers = [await answer(TrainerServiceStub(channel), body) for body in bodies]
        await server.stop(0)
        return answers

    return asyncio.run(serve())


def assert_disk_full(answer: Answer) -> None:
    assert isinstance(answer, grpc.aio.AioRpcError)
    status = rpc_status.from_call(answer)
    assert status is not None, answer
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert [detail.Unpack(kind) for detail, kind in zip(status.details, (info, retry), strict=True)]
    assert (answer.code(), info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL")
    assert retry.retry_delay.seconds > 0


def left_on(disk: Path) -> list[str]:
    """What is there, whether it has a name or only a descriptor."""
    descriptors = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    return [*map(str, disk.iterdir()), *(file for file in descriptors if file.startswith(str(disk)))]


def test_a_file_larger_than_the_disk_leaves_nothing_and_a_smaller_one_succeeds(disk: Path, trainer: Trainer) -> None:
    (too_large,) = bring(trainer, bytes(2 * SMALL_DISK_BYTES))
    assert_disk_full(too_large)
    assert list(trainer.store.keys("")) == []
    assert left_on(disk) == []
    again, smaller = bring(trainer, bytes(2 * SMALL_DISK_BYTES), GOOD)
    assert_disk_full(again)
    # The name was free.
    assert isinstance(smaller, adapter_pb2.Adapter)
    assert smaller.name == "projects/default/adapters/mia/versions/1"
    assert left_on(disk) == []


def test_a_disk_that_others_have_filled_refuses_the_smallest_file_until_there_is_room(
    disk: Path, trainer: Trainer
) -> None:
    others = disk / "somebody-elses"
    with pytest.raises(OSError, match="No space left"):
        others.write_bytes(bytes(2 * SMALL_DISK_BYTES))
    (answer,) = bring(trainer, GOOD)
    assert_disk_full(answer)
    assert list(trainer.store.keys("")) == []
    others.unlink()
    (answer,) = bring(trainer, GOOD)
    assert isinstance(answer, adapter_pb2.Adapter)
