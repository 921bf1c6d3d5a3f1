"""A trainer service and its worker whose disk is full, a real one: trainings need none, imports wait for room.

Everything that they could write to is on it: the folder for temporary files, the home folder, the one they are started
in, and their log.
"""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from personae.v1 import trainer_pb2 as pb
from personae.v1.trainer_pb2_grpc import TrainerServiceStub
from personae.v1.training_pb2 import Training
from tests.faults.modelled import SERVING, health
from tests.integration.trainer_calls import CALL_S, UNJUDGED, UNJUDGED_CONFIG, TrainerCalls, details, unique
from tests.lora_files import LINEAR, file, kohya
from tests.real_store import RealStore
from tests.service_process import running_service, service_environment
from tests.small_disk import SMALL_DISK_BYTES, small_disk

pytestmark = [pytest.mark.faults, pytest.mark.slow]

# Whoever does not read them from the environment takes the folder that these name, and then the one it was started in.
_FOLDERS = ("TMPDIR", "HOME", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "HF_HOME")
BODY = file(kohya(LINEAR))


def messages(adapter_id: str) -> Iterator[pb.ImportAdapterRequest]:
    yield pb.ImportAdapterRequest(header=pb.ImportAdapterRequest.Header(adapter_id=adapter_id, base_model="plain"))
    yield pb.ImportAdapterRequest(chunk=BODY)


def test_a_training_on_a_full_disk_succeeds_and_an_import_waits(
    real_store: RealStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        environment = service_environment(real_store, **UNJUDGED) | dict.fromkeys(_FOLDERS, str(disk))
        others = disk / "somebody-elses"
        with pytest.raises(OSError, match="No space left"):
            others.write_bytes(bytes(2 * SMALL_DISK_BYTES))
        monkeypatch.chdir(disk)
        with (
            running_service("trainer_service", environment, disk / "trainer.log") as service,
            grpc.insecure_channel(service.address) as channel,
        ):
            trainer = TrainerCalls(TrainerServiceStub(channel))
            dataset = trainer.dataset(3)
            for _ in range(2):
                ended = trainer.finish(trainer.train(dataset, **UNJUDGED_CONFIG, steps=2, sample_every=1).name)
                assert ended.state == Training.State.STATE_SUCCEEDED, ended
            adapter_id = unique("mia")
            with pytest.raises(grpc.RpcError) as caught:
                trainer.stub.ImportAdapter(messages(adapter_id), timeout=CALL_S)
            assert (caught.value.code(), details(caught.value)[0]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL")
            assert {path.name for path in disk.rglob("*") if not path.is_dir()} == {others.name, "trainer.log"}
            others.unlink()
            made = trainer.stub.ImportAdapter(messages(adapter_id), timeout=CALL_S).adapter
            assert made.name.endswith(f"/{adapter_id}/versions/1")
            assert health(service) == SERVING
