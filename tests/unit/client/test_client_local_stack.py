"""The local stack, with services of a few lines and no store: how it starts, fails and stops."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

import personae
from personae.cli import local_stack
from personae.cli.local_stack import Addresses, StackError

SERVING = """
import json, os, sys, time
print("settings", sorted(name for name in os.environ if name.startswith("PERSONAE_")), file=sys.stderr, flush=True)
print(json.dumps({"event": "serving", "address": "127.0.0.1:7", "health_address": "127.0.0.1:8"}), flush=True)
time.sleep(600)
"""
BROKEN = "import sys; print('the model is gone', file=sys.stderr); sys.exit(3)"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout whose services only say that they serve, with a store that is somebody else's."""
    for service in ("trainer_service", "inference_service"):
        folder = tmp_path / "checkout" / service
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "__main__.py").write_text(SERVING)
        # The real one may be imported already, and would then be found.
        monkeypatch.delitem(sys.modules, service, raising=False)
    monkeypatch.syspath_prepend(tmp_path / "checkout")
    monkeypatch.setenv("PERSONAE_S3_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("PERSONAE_SOMETHING_ELSE", "x")
    return tmp_path / "checkout"


def start(checkout, addresses=None, options=None):
    data = checkout / ".local"
    return local_stack.running(data / "store", data / "logs", addresses or Addresses(), options or {})


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "Z"


def test_services_get_their_settings_and_no_others(checkout):
    with start(checkout) as stack:
        assert (stack.trainer, stack.inference) == ("127.0.0.1:7", "127.0.0.1:7")
        assert stack.store == "http://127.0.0.1:1"
    log = (checkout / ".local" / "logs" / "trainer_service.log").read_text()
    assert "PERSONAE_S3_ENDPOINT" in log
    assert "PERSONAE_TRAINER_HEALTH_ADDRESS" in log
    assert "PERSONAE_SOMETHING_ELSE" not in log


def test_everything_is_stopped_when_the_context_is_left_by_an_error(checkout):
    children = []

    def use_the_stack():
        with start(checkout) as stack:
            children.extend(stack._children)
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        use_the_stack()
    assert [child.exit_code for child in children] == [-signal.SIGTERM] * 2


def test_a_service_that_ends_at_once_is_quoted(checkout):
    (checkout / "inference_service" / "__main__.py").write_text(BROKEN)
    with (
        pytest.raises(StackError, match=r"(?s)inference_service ended with exit code 3.*the model is gone"),
        start(checkout),
    ):
        pass


def test_a_service_that_ends_later_is_noticed(checkout):
    (checkout / "trainer_service" / "__main__.py").write_text(SERVING.replace("time.sleep(600)", "sys.exit(4)"))
    with pytest.raises(StackError, match="exit code 4"), start(checkout) as stack:
        stack.watch()


def test_a_taken_port_is_refused_at_once_with_what_to_change(checkout):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        options = {"inference": "--inference or PERSONAE_INFERENCE_ADDRESS"}
        with (
            pytest.raises(StackError, match=f"{address} is taken.*--inference"),
            start(checkout, Addresses(inference=address), options),
        ):
            pass
    assert not (checkout / ".local").exists()


def test_an_address_without_a_port_is_an_invalid_request(checkout):
    options = {"trainer": "--trainer"}
    with pytest.raises(personae.InvalidRequest, match="--trainer"), start(checkout, Addresses("here"), options):
        pass


def test_without_a_checkout_it_says_so(monkeypatch):
    monkeypatch.setattr(local_stack.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StackError, match="source checkout"):
        local_stack.checkout()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
def test_nothing_outlives_a_killed_parent(checkout):
    program = (
        f"import sys, time; sys.path.insert(0, {str(checkout)!r})\n"
        "from pathlib import Path\n"
        "from personae.cli import local_stack\n"
        f"data = Path({str(checkout)!r})\n"
        "with local_stack.running(data, data, local_stack.Addresses(), {}) as stack:\n"
        "    print(*(child._process.pid for child in stack._children), flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        children = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(children) == 2
    give_up = time.monotonic() + 10
    while not all(map(is_gone, children)):
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_credentials_are_made_once_and_for_the_owner_alone(tmp_path):
    first = local_stack._credentials(tmp_path)
    assert first == local_stack._credentials(tmp_path)
    assert first[2].stat().st_mode & 0o777 == 0o600
    assert len(set(first[:2])) == 2
