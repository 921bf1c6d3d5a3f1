"""Children that decode: what hostile pictures do to them harms one picture, and nothing else."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service_kit import decoder as decoder_module
from service_kit.decoder import DecoderPool, DecodingSettings
from service_kit.decoder_child import DecodingLimits
from service_kit.errors import ServiceUnavailable, TryLater
from service_kit.picture_file import Flaw, PictureRefused

CHILD = "tests.hostile_decoder"
LIMITS = DecodingLimits(memory_bytes=128 * 1024**2, cpu_s=1)
# For pictures that shall not be ended by a limit, however slow the machine is.
PATIENT = DecodingLimits(memory_bytes=128 * 1024**2, cpu_s=60)
PATIENCE_S = 60.0


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    made = DecoderPool(CHILD, LIMITS, children=2)
    yield made
    made.close()


def echo(pool: DecoderPool, body: bytes = b"picture") -> int:
    """The process id of the child that gave the picture back."""
    head, returned = pool.ask("echo", body, len(body))
    assert returned == body
    return int(head)


def is_busy(pool: DecoderPool) -> bool:
    try:
        echo(pool)
    except TryLater:
        return True
    return False


def refusal(pool: DecoderPool, function: str) -> str:
    with pytest.raises(PictureRefused) as caught:
        pool.ask(function, b"picture", 100)
    assert caught.value.flaw is Flaw.TRUNCATED
    return caught.value.detail


def is_gone(child: int) -> bool:
    return not Path(f"/proc/{child}").exists()


def wait_until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def unread_bytes(child: int) -> int:
    """How much of a request a stopped child has not read yet."""
    with open(f"/proc/{child}/fd/3", "rb") as requests:
        return int.from_bytes(fcntl.ioctl(requests, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_one_child_takes_picture_after_picture(pool: DecoderPool) -> None:
    pool.warm()
    assert len({echo(pool, os.urandom(size)) for size in (0, 1, 70_000, 5_000_000)}) == 1


def test_a_picture_that_eats_memory_is_refused_and_the_next_is_not(pool: DecoderPool) -> None:
    assert "memory than allowed are: 134,217,728" in refusal(pool, "eat_memory")
    echo(pool)


def test_a_picture_that_burns_processor_time_is_refused_and_its_child_replaced(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However busy the machine is, it is not the clock that ends it.
    monkeypatch.setattr(decoder_module, "_CLOCK_TO_CPU", PATIENCE_S)
    first = echo(pool)
    assert "processor time than allowed are: 1 s" in refusal(pool, "burn")
    assert is_gone(first)
    echo(pool)


def test_many_pictures_may_take_more_time_together_than_one_alone(pool: DecoderPool) -> None:
    children = {pool.ask("work", b"", 0)[0] for _ in range(4)}
    assert len(children) == 1


def test_a_picture_that_waits_for_ever_is_refused_by_the_clock(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = echo(pool)
    monkeypatch.setattr(decoder_module, "_CLOCK_TO_CPU", 0.5)
    assert "longer than" in refusal(pool, "hang")
    assert is_gone(first)


def test_a_picture_that_crashes_its_decoder_is_refused_and_the_next_is_not(pool: DecoderPool) -> None:
    first = echo(pool)
    assert "breaks down" in refusal(pool, "crash")
    assert is_gone(first)
    echo(pool)


def test_an_exception_that_nobody_thought_of_is_logged_and_refuses_one_picture(
    pool: DecoderPool, caplog: pytest.LogCaptureFixture
) -> None:
    assert refusal(pool, "raise") == "cannot be decoded"
    assert "nobody thought of" in caplog.text
    echo(pool)


def test_an_answer_larger_than_was_asked_for_is_not_read(pool: DecoderPool) -> None:
    with pytest.raises(PictureRefused):
        pool.ask("echo", bytes(1001), 1000)
    echo(pool)


def test_a_picture_whose_child_was_killed_from_outside_is_decoded_by_another(pool: DecoderPool) -> None:
    child = echo(pool)
    os.kill(child, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(echo, pool, bytes(1_000_000))
        wait_until(lambda: unread_bytes(child) > 0)
        os.kill(child, signal.SIGKILL)
        assert asked.result(PATIENCE_S) != child


def test_an_idle_child_that_was_killed_is_replaced_unseen(pool: DecoderPool) -> None:
    child = echo(pool)
    os.kill(child, signal.SIGKILL)
    assert echo(pool) != child


def test_32_threads_share_the_children_and_each_gets_its_own_picture(pool: DecoderPool) -> None:
    with ThreadPoolExecutor(32) as threads:
        children = set(threads.map(lambda number: echo(pool, bytes([number]) * 100_000), range(64)))
    assert len(children) <= 2


def test_hostile_and_good_pictures_at_once_are_told_apart(pool: DecoderPool) -> None:
    def ask(number: int) -> bool:
        if number % 4:
            return echo(pool) > 0
        return "breaks down" in refusal(pool, "crash")

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(ask, range(24)))


def test_a_child_can_open_nothing_and_start_nothing(pool: DecoderPool) -> None:
    assert pool.ask("reach_out", b"", 0) == (b"", b"")


def test_a_child_knows_no_secret_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONAE_S3_SECRET_KEY", "hush-hush")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "hush-hush")
    pool = DecoderPool(CHILD, LIMITS, children=1)
    environment, _ = pool.ask("environment", b"", 0)
    pool.close()
    names = {variable.partition(b"=")[0] for variable in environment.split(b"\0") if variable}
    assert b"hush" not in environment
    assert not any(name.startswith((b"PERSONAE", b"AWS")) for name in names)
    assert b"PYTHONPATH" in names


def test_closing_leaves_no_process_and_refuses_no_picture() -> None:
    pool = DecoderPool(CHILD, PATIENT, children=2)
    idle = echo(pool)
    with ThreadPoolExecutor(1) as beside:
        hanging = beside.submit(pool.ask, "hang", b"", 0)
        with ThreadPoolExecutor(1) as other:
            busy_beside = other.submit(echo, pool).result(PATIENCE_S)
        pool.close()
        # Not PictureRefused: nothing is known of the picture.
        with pytest.raises(ServiceUnavailable):
            hanging.result(PATIENCE_S)
    assert is_gone(idle)
    assert is_gone(busy_beside)
    with pytest.raises(ServiceUnavailable):
        echo(pool)


def test_children_are_gone_when_the_service_is_killed() -> None:
    code = (
        "import time; from service_kit.decoder import DecoderPool, DecodingLimits;"
        f"pool = DecoderPool({CHILD!r}, DecodingLimits(10**8, 5), 1);"
        "print(pool.ask('echo', b'', 0)[0].decode(), flush=True); time.sleep(3600)"
    )
    service = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    child = int(service.stdout.readline())
    assert not is_gone(child)
    service.kill()
    service.wait()
    service.stdout.close()
    wait_until(lambda: is_gone(child))


def test_a_decoder_that_does_not_start_is_no_fault_of_the_picture() -> None:
    pool = DecoderPool("tests.there_is_no_such_module", LIMITS, children=1)
    with pytest.raises(ServiceUnavailable, match="no decoder"):
        echo(pool)
    pool.close()


def test_waiting_for_a_child_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = DecoderPool(CHILD, PATIENT, children=1)
    echo(pool)
    monkeypatch.setattr(decoder_module, "_WAIT_FOR_A_CHILD_S", 0.2)
    begun = threading.Event()

    def hang() -> None:
        begun.set()
        pool.ask("hang", b"", 0)

    with ThreadPoolExecutor(1) as beside:
        hanging = beside.submit(hang)
        begun.wait(PATIENCE_S)
        # Until the other has got it.
        wait_until(lambda: is_busy(pool))
        pool.close()
        assert isinstance(hanging.exception(PATIENCE_S), ServiceUnavailable)


def test_the_defaults_have_room_for_the_largest_picture_that_is_allowed() -> None:
    limits = DecodingSettings().limits
    # 64 megapixels of 16 bits: the file's, and 32 bits twice on the way to 8.
    assert limits.memory_bytes > 64_000_000 * (2 + 4 + 4 + 3)
