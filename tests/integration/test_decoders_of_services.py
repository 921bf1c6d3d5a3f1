"""The decoders of a real service: what they may do, and that they go when it goes, however it goes."""

import os
import signal
import time
from pathlib import Path

import grpc
import pytest

from personae.v1 import trainer_pb2 as pb
from personae.v1.trainer_pb2_grpc import TrainerServiceStub
from tests.integration.trainer_calls import CALL_S, TrainerCalls, bundled_files, unique, upload_messages
from tests.real_store import RealStore
from tests.service_process import ServiceProcess, running_service, service_environment

_PATIENCE_S = 60.0
_SECRET = "PERSONAE_S3_SECRET_KEY"


def _children(service: ServiceProcess) -> list[Path]:
    """The /proc folders of its decoders. Threads start them, so that its main thread's list lacks them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == service.process.pid and b"decoder_child" in command:
            found.append(folder)
    return found


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_service_takes_its_decoders_with_it(real_store: RealStore, tmp_path: Path, end: signal.Signals) -> None:
    environment = service_environment(real_store, PERSONAE_TRAINER_WORKERS="0")
    assert environment[_SECRET]
    with running_service("trainer_service", environment, tmp_path / "log") as service:
        with grpc.insecure_channel(service.address) as channel:
            stub = TrainerServiceStub(channel)
            name = TrainerCalls(stub).dataset(4)
            files = bundled_files(4) | {"broken.png": b"\x89PNG\r\n\x1a\n broken"}
            answer = stub.UploadImages(upload_messages(name, files), timeout=CALL_S)
            assert len(answer.dataset.report.images) == 5
            created = stub.CreateDataset(pb.CreateDatasetRequest(dataset_id=unique("empty")), timeout=CALL_S)
            assert created.dataset.name
        decoders = _children(service)
        assert 1 <= len(decoders) <= 2
        for decoder in decoders:
            assert environment[_SECRET].encode() not in (decoder / "environ").read_bytes()
            # No socket of the service's was inherited.
            kinds = [os.readlink(descriptor).partition(":")[0] for descriptor in (decoder / "fd").iterdir()]
            assert set(kinds) <= {"/dev/null", "pipe"}
        service.process.send_signal(end)
        service.process.wait(_PATIENCE_S)
        give_up = time.monotonic() + _PATIENCE_S
        while any(decoder.exists() for decoder in decoders):
            assert time.monotonic() < give_up
            time.sleep(0.05)
